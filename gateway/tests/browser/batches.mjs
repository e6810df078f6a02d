// Registration in batches. Arguments: a viewer's name and password.
import { check, expect, given, run, same, told } from './harness.mjs';

const [viewer, password] = given;
const file = (text) => ({ name: 'devices.csv', mimeType: 'text/csv', buffer: Buffer.from(text) });
const HEADING = 'node_id,product_id,device_name\n';

async function send(page, text) {
  await page.goto('/batches');
  await page.setInputFiles('#file', file(text));
  await page.click('main form button.primary');
}

run(async (open) => {
  const page = await open();
  await page.goto('/batches');
  same(await page.textContent('.empty'), 'There is no batch yet.', 'the empty list');
  const [template] = await Promise.all([page.waitForEvent('download'), page.click(':is(a, button, summary):text-is("Download a template")')]);
  same(template.suggestedFilename(), 'devices.csv', 'the template');
  await check(page, 'batches-empty');
  for (const [text, wrong] of [
    ['', 'Choose a file.'],
    ['nothing,of,this\n1,2,3\n', 'The heading names'],
    [HEADING, 'The file has no row.'],
    [Buffer.concat([Buffer.from(HEADING), Buffer.from([0xd0, 0xff, 0x2c, 0x50, 0x0a])]), 'Line 2 is not UTF-8'],
  ]) {
    await send(page, text);
    await page.waitForSelector('#file-wrong');
    expect((await page.textContent('#file-wrong')).startsWith(wrong), wrong);
  }
  await check(page, 'batches-refused');

  let rows = HEADING + 'a1,P,=1+1\na2,P,\na1,P,\n<b>,P,\nx,Q,\n';
  for (let n = 0; n < 60; n += 1) rows += `many-${n},P,\n`;
  await send(page, rows);
  await page.waitForURL(/batches\/[0-9A-Z]+\?note=batch-taken/i);
  // The page goes on by itself.
  await page.waitForFunction(() => document.querySelector('.head .state').textContent === 'Finished');
  await check(page, 'batch');
  expect((await page.textContent('.tabs')).replace(/\s+/g, ' ').includes('All 65Registered 62'), 'the counts');
  same(await page.locator('tbody tr').count(), 50, 'a page of rows');
  expect(/^[0-9a-f]{32}$/.test(await page.textContent('tbody tr:first-child td:nth-child(6)')), 'a secret is shown');
  await page.click(':is(a, button, summary):text-is("Next page")');
  same(await page.locator('tbody tr').count(), 15, 'the next page');
  await page.click('.tabs a:has-text("Failed")');
  same(await page.locator('tbody tr').count(), 3, 'those that failed');
  expect((await page.textContent('tbody')).includes('<b>'), 'a cell with a tag is a text');
  await check(page, 'batch-failed');
  const [result] = await Promise.all([page.waitForEvent('download'), page.click(':is(a, button, summary):text-is("Download the result")')]);
  expect(/^devices-.*-result\.csv$/.test(result.suggestedFilename()), 'the result');
  const own = page.url().split('?')[0];

  const watcher = await open({ as: viewer, password });
  await watcher.goto(own);
  same(await watcher.locator('text=Secret').count(), 0, 'a viewer sees no secret');
  same(await watcher.locator('main button').count(), 0, 'and changes nothing');

  await page.click(':is(a, button, summary):text-is("I have the secrets: show them no more")');
  await page.waitForURL(/note=batch-confirmed/);
  same(await page.locator('thead >> text=Secret').count(), 0, 'no secret is shown any more');

  // The same file again is the same batch where all went well, else a new one that changes nothing.
  await send(page, HEADING + 'a1,P,=1+1\n');
  await page.waitForFunction(() => document.querySelector('.head .state')?.textContent === 'Finished');
  expect((await page.textContent('.tabs')).replace(/\s+/g, ' ').includes('Unchanged 1'), 'it was there');
  await send(page, HEADING + 'a1,P,=1+1\n');
  await page.waitForURL(/note=batch-known/);
  expect((await told(page)).startsWith('The same file was sent before'), 'it is said');

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  await send(small, HEADING + 'last,P,\n');
  await small.waitForURL(/note=batch-taken/);
  await check(small, 'batch');
  await small.goto('/batches');
  await check(small, 'batches');
  await page.goto(own);
  await page.click('summary');
  await page.click('details button');
  await page.waitForURL(/batches\?note=deleted/);
  same(await page.locator('tbody tr').count(), 2, 'two are left');
  await check(page, 'batches');
  const live = await open({ width: 390 });
  await live.goto('/batches');
  await check(live, 'batches');
});
