// From the first start to a finished roll-out, with nothing but the screen and the keyboard's own keys: what a new
// operator does. Arguments: a directory with a file to deliver, how many devices there will be: each comes when it is
// registered, and takes nothing before the directory says that the roll-out is watched, the last one that the page moved.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { check, expect, given, run, same, secret } from './harness.mjs';

const [directory, devices] = given;
const count = Number(devices);
const csv = (name, text) => ({ name, mimeType: 'text/csv', buffer: Buffer.from(text) });
const link = (page, name) => page.getByRole('link', { name, exact: true });
const button = (page, name) => page.getByRole('button', { name, exact: true });

/** Tells of every change of a task's rows: when, and how many of them are out of sight. */
function notice() {
  addEventListener('DOMContentLoaded', () => {
    const table = document.querySelector('table.deliveries');
    if (!table) return;
    new MutationObserver((changes) => {
      const rows = new Set(changes.map((one) => one.target.parentElement.closest('[data-row]')));
      const places = [...rows].map((row) => row.getBoundingClientRect());
      const hidden = places.filter((place) => place.bottom < 0 || place.top > innerHeight).length;
      window.moved(Date.now(), hidden);
    }).observe(table, { subtree: true, childList: true, characterData: true });
  });
}

run(async (open) => {
  const page = await open({ as: null });
  const moves = [];
  await page.exposeFunction('moved', (at, hidden) => moves.push({ at, hidden }));
  await page.addInitScript(notice);
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
  await page.getByLabel('File', { exact: true }).setInputFiles(join(directory, 'firmware.bin'));
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
  await page.locator('table.deliveries').waitFor();
  // As though the page had been made before all deliveries were.
  await page.evaluate(() => { document.querySelector('#total').textContent = '1'; });
  writeFileSync(join(directory, 'watched'), '');
  while (moves.length === 0) await page.waitForTimeout(20);
  await page.locator('#total', { hasText: String(count) }).waitFor();
  writeFileSync(join(directory, 'moved'), '');
  await page.locator('#state', { hasText: 'Finished' }).waitFor({ timeout: 60000 });
  await link(page, 'Export as CSV').waitFor();
  same(await page.locator('[data-count="delivered"]').innerText(), String(count), 'all are delivered');
  // The page moved at most twice a second, and only what could be seen of it.
  const quick = moves.filter(({ at }) => moves.filter((other) => other.at > at - 1000 && other.at <= at).length > 3);
  same(quick.length, 0, `changes within a second of three others: ${JSON.stringify(moves)}`);
  same(moves.filter(({ hidden }) => hidden > 0).length, 0, 'changes of rows that nobody sees');
  await check(page, 'first-task');
  const [report] = await Promise.all([page.waitForEvent('download'), link(page, 'Export as CSV').click()]);
  expect(/^task-[0-9a-z]{13}\.csv$/.test(report.suggestedFilename()), report.suggestedFilename());
  await link(page, 'Overview').click();
  same(await page.getByText('First steps').count(), 0, 'nothing of the first steps is left to do');
  await check(page, 'overview-after');
});
