// Applications: making, binding, disabling and deleting them. Devices P_a, P_b and P_c are there.
import { check, expect, run, same, told } from './harness.mjs';

const submit = (page) => page.click('main form button.primary');

run(async (open) => {
  const page = await open();
  await page.goto('/applications');
  same(await page.textContent('.empty'), 'There is no application yet.', 'the empty list');
  await page.click(':is(a, button, summary):text-is("Make an application")');
  await page.fill('#id', 'a b');
  await page.fill('#name', '<i>Desk</i>');
  await submit(page);
  await page.waitForSelector('#id-wrong');
  await check(page, 'application-new-refused');
  await page.fill('#id', 'desk');
  await submit(page);
  await page.waitForSelector('#secret');
  const secret = await page.textContent('#secret');
  expect(secret.length > 20, 'its secret');
  await check(page, 'application-secret');
  await page.click(':is(a, button, summary):text-is("Open the application")');
  same(await page.textContent('h1'), '<i>Desk</i>', 'a text with a tag is a text');
  expect(!(await page.content()).includes(secret), 'the secret is shown once');

  // Devices are bound by name and from a file; what cannot be is named.
  await page.fill('#devices', ' , ');
  await submit(page);
  await page.waitForSelector('#devices-wrong');
  await page.fill('#devices', 'P_a\nP_b, <none> no-such');
  await submit(page);
  await page.waitForSelector('[role=alert]');
  const wrong = await page.textContent('[role=alert]');
  expect(wrong.includes('2 devices were bound. 2 could not be'), wrong);
  expect(wrong.includes('no-such: there is no such device') && wrong.includes('<none>'), 'each is named');
  same(await page.locator('tbody tr').count(), 2, 'the others are bound');
  await check(page, 'application-bound');
  const csv = (text) => ({ name: 'd.csv', mimeType: 'text/csv', buffer: Buffer.from(text) });
  const send = async (text) => {
    await page.setInputFiles('#file', csv(text));
    await page.click(':is(a, button, summary):text-is("Bind those of the file")');
  };
  await send('name\nP_c\n');
  await page.waitForSelector('#file-wrong');
  await send('device_id,x\nP_c,1\ngone,2\n');
  await page.waitForSelector('[role=alert]');
  expect((await page.textContent('[role=alert]')).includes('Line 3, gone'), 'with its line');
  await send('device_id\nP_c\n');
  await page.waitForURL(/note=devices-bound/);
  await page.click(':is(a, button, summary):text-is("Unbind the chosen")');
  await page.waitForSelector('[role=alert]');
  same(await told(page), 'No device was chosen. Nothing was changed.', 'nothing was chosen');
  await page.check('[aria-label="Choose P_a"]');
  await page.check('[aria-label="Choose P_b"]');
  await page.click(':is(a, button, summary):text-is("Unbind the chosen")');
  await page.waitForURL(/note=devices-unbound/);
  same(await page.locator('tbody tr').count(), 1, 'one is left');
  await check(page, 'application');
  await page.goto('/devices?app=desk');
  same(await page.locator('tbody tr').count(), 1, 'devices are found by application');

  await page.goto('/applications/desk');
  await page.selectOption('#which', 'secondary');
  await page.click(':is(a, button, summary):text-is("Make a new secret")');
  await page.waitForSelector('#secret');
  expect((await page.textContent('#secret')) !== secret, 'another one');
  await page.goto('/applications/desk');
  await page.click('summary');
  await page.click('button:text-is("Disable the application")');
  await page.waitForURL(/note=app-disabled/);
  await page.click(':is(a, button, summary):text-is("Let it in again")');
  await page.waitForURL(/note=app-enabled/);

  const other = await open();
  await page.click('main :is(a, button, summary):text-is("Edit")');
  await other.goto(page.url());
  await page.fill('#name', 'Desk');
  await page.click(':is(a, button, summary):text-is("Save")');
  await page.waitForURL(/note=saved/);
  await other.fill('#name', 'Other');
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForSelector('[role=alert]');
  same(await other.inputValue('#name'), 'Desk', 'the second operator sees what is there');

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  await small.goto('/applications/new');
  await small.fill('#id', 'spare');
  await submit(small);
  await small.waitForSelector('#secret');
  await small.click(':is(a, button, summary):text-is("Open the application")');
  await small.fill('#devices', 'P_a');
  await submit(small);
  await small.waitForURL(/note=devices-bound/);
  await check(small, 'application');
  await small.click('main :is(a, button, summary):text-is("Delete")');
  await check(small, 'application-delete');
  await small.click('button.danger');
  await small.waitForURL(/applications\?note=deleted/);
  await page.goto('/applications?text=DESK');
  same(await page.locator('tbody tr').count(), 1, 'one is found');
  await check(page, 'applications');
  const live = await open({ width: 390 });
  await live.goto('/applications/desk');
  await check(live, 'application-live');
});
