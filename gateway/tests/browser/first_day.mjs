// From the first start to a finished roll-out, with nothing but the screen and the keyboard's own keys: what a new
// operator does. Arguments: a file, how many devices there will be: each comes when it is registered.
import { check, expect, given, run, same, secret } from './harness.mjs';

const [file, devices] = given;
const count = Number(devices);
const csv = (name, text) => ({ name, mimeType: 'text/csv', buffer: Buffer.from(text) });
const link = (page, name) => page.getByRole('link', { name, exact: true });
const button = (page, name) => page.getByRole('button', { name, exact: true });

run(async (open) => {
  const page = await open({ as: null });
  await page.goto('/');
  expect((await page.textContent('main')).includes('admin.password'), 'where the password is');
  await page.getByLabel('Name', { exact: true }).fill('admin');
  await page.getByLabel('Password', { exact: true }).fill(secret);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor();
  await check(page, 'first-overview');

  // What is to be done first, the overview says.
  await link(page.locator('main'), 'Make a product').click();
  await page.getByLabel('Product id').fill('meter');
  await page.getByLabel('Name', { exact: true }).fill('Water meter');
  await button(page, 'Save').click();
  await page.getByRole('heading', { name: 'Water meter' }).waitFor();

  await link(page, 'Overview').click();
  await link(page.locator('main'), 'Register devices').click();
  const rows = Array.from({ length: count }, (_, n) => `m${n},meter,Meter ${n},secret-of-meter-${n}`);
  await page.getByLabel('CSV', { exact: true }).setInputFiles(csv('devices.csv', `node_id,product_id,device_name,secret\n${rows.join('\n')}\n`));
  await button(page, 'Register').click();
  await page.locator('.head .state', { hasText: 'Finished' }).waitFor();

  await link(page, 'Overview').click();
  await link(page.locator('main'), 'Add a resource').click();
  await page.getByLabel('Name', { exact: true }).fill('firmware-120');
  await page.getByLabel('File', { exact: true }).setInputFiles(file);
  await button(page, 'Upload').click();
  await page.getByRole('heading', { name: 'firmware-120' }).waitFor();

  await link(page.locator('main'), 'Deliver').click();
  await page.getByLabel('The devices of a CSV').check();
  const names = Array.from({ length: count }, (_, n) => `m${n}`);
  await page.locator('#file').setInputFiles(csv('roll-out.csv', `DeviceName\n${names.join('\n')}\n`));
  await button(page, 'Preview').click();
  await button(page, 'Start').waitFor();
  expect((await page.textContent('main')).includes(`goes to ${count} devices of the product meter`), 'what will happen');
  await button(page, 'Start').click();
  await page.locator('#state', { hasText: 'Finished' }).waitFor({ timeout: 60000 });
  await link(page, 'Export as CSV').waitFor();
  same(await page.locator('[data-count="delivered"]').innerText(), String(count), 'all are delivered');
  await check(page, 'first-task');
  const [report] = await Promise.all([page.waitForEvent('download'), link(page, 'Export as CSV').click()]);
  expect(/^task-[0-9a-z]{13}\.csv$/.test(report.suggestedFilename()), report.suggestedFilename());
  await link(page, 'Overview').click();
  same(await page.getByText('First steps').count(), 0, 'nothing of the first steps is left to do');
  await check(page, 'overview-after');
});
