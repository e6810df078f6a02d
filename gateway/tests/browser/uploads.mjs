// Device resources: found, downloaded, deleted. Arguments: the device, the name of its file.
import { check, expect, given, run, same } from './harness.mjs';

const [device, name] = given;

run(async (open) => {
  const page = await open();
  await page.goto('/uploads');
  same(await page.locator('tbody tr').count(), 1, 'one file');
  expect((await page.textContent('tbody')).includes(name), 'its name');
  await check(page, 'uploads');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(':is(a, button, summary):text-is("Download")')]);
  expect(download.suggestedFilename().length > 0, 'the download');
  await page.fill('#device', 'another');
  await page.click('main form button');
  same(await page.textContent('.empty'), 'No file fits the filter.', 'another device');
  await page.fill('#device', device);
  await page.click('main form button');
  same(await page.locator('tbody tr').count(), 1, 'its device');

  const small = await open({ width: 390, script: false, dark: true });
  await small.goto('/uploads');
  await check(small, 'uploads');
  await small.click('tbody :is(a, button, summary):text-is("Delete")');
  await check(small, 'upload-delete');
  await small.click('button.danger');
  await small.waitForURL(/\/uploads\?note=deleted/);
  same(await small.textContent('.empty'), 'No device has sent a file yet.', 'nothing is left');
});
