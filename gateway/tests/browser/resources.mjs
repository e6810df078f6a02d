// Platform resources: adding, finding, editing, replacing and deleting them. Argument: a product.
import { base, check, expect, given, run, same, told } from './harness.mjs';

const [product] = given;
const file = (name, size) => ({ name, mimeType: 'application/octet-stream', buffer: Buffer.alloc(size, 7) });

async function add(page, name, description, size) {
  await page.goto('/resources/new');
  await page.fill('#name', name);
  await page.fill('#description', description);
  await page.setInputFiles('#file', file('a.bin', size));
  await page.click('main form button.primary');
}

run(async (open) => {
  const page = await open();
  await page.goto('/resources');
  same(await page.textContent('.empty'), 'There is no resource yet.', 'the empty list');
  await page.click(':is(a, button, summary):text-is("Add a resource")');
  await check(page, 'resource-new');

  await add(page, '-wrong', '<img src=x onerror=alert(1)>', 10);
  await page.waitForSelector('[aria-invalid]');
  expect((await page.textContent('#name-wrong')).startsWith('The name must have'), 'the rule stands beside the field');
  same(await page.inputValue('#description'), '<img src=x onerror=alert(1)>', 'what was filled in stays');
  await check(page, 'resource-new-refused');
  await add(page, 'empty', '', 0);
  await page.waitForSelector('#file-wrong');
  same(await page.textContent('#file-wrong'), 'The file is empty.', 'an empty file');

  await add(page, '固件(1)', '<img src=x onerror=alert(1)>', 200_000);
  await page.waitForURL(/note=resource-added/);
  same(await told(page), 'The resource was added.', 'the notice');
  same(await page.textContent('h1'), '固件(1)', 'its name');
  expect((await page.textContent('main')).includes('<img src=x'), 'a text with a tag is a text');
  expect((await page.textContent('main')).includes('200,000 bytes'), 'its size');
  await check(page, 'resource');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(':is(a, button, summary):text-is("Download")')]);
  same(download.suggestedFilename(), '固件(1)', 'the name of the download');

  // Two operators edit at once: the second one is told, and nothing of hers is stored.
  const other = await open();
  await page.click(':is(a, button, summary):text-is("Edit")');
  await other.goto(page.url());
  await page.fill('#description', 'first');
  await page.click(':is(a, button, summary):text-is("Save")');
  await page.waitForURL(/note=saved/);
  await other.fill('#description', 'second');
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForSelector('[role=alert]');
  expect((await told(other)).startsWith('Someone else changed this'), 'the second operator is told');
  same(await other.inputValue('#description'), 'first', 'and sees what is there');
  await check(other, 'resource-edit-overtaken');
  await other.fill('#description', 'second');
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForURL(/note=saved/);

  await add(page, '固件(1)', '', 10);
  await page.waitForSelector('#name-wrong');
  same(await page.textContent('#name-wrong'), 'Another resource of this product has this name.', 'a taken name');
  await add(page, 'second', 'the other one', 70_000);
  await page.waitForURL(/note=resource-added/);
  await page.click('summary');
  await page.setInputFiles('#file', file('b.bin', 61_441));
  await page.click('details button');
  await page.waitForURL(/note=content-replaced/);
  expect((await page.textContent('main')).includes('61,441 bytes'), 'the new bytes');

  await page.goto('/resources');
  await check(page, 'resources');
  await page.fill('#text', 'OTHER');
  await page.click('main form button');
  same(await page.locator('tbody tr').count(), 1, 'one is found');
  await page.selectOption('#product', product);
  await page.click('main form button');
  same(await page.inputValue('#text'), 'OTHER', 'the filter stays');
  await page.fill('#text', 'nothing has this');
  await page.click('main form button');
  same(await page.textContent('.empty'), 'No resource fits the search.', 'nothing is found');

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  await add(small, 'third', '', 1_000);
  await small.waitForURL(/note=resource-added/);
  await check(small, 'resource');
  await small.click(':is(a, button, summary):text-is("Delete")');
  await check(small, 'resource-delete');
  await small.click('button.danger');
  await small.waitForURL(`${base}/resources?note=deleted`);
  same(await small.locator('tbody tr').count(), 2, 'two are left');
  const live = await open({ width: 390 });
  await live.goto('/resources');
  await check(live, 'resources');
});
