// Delivering: to one device, to the devices of a CSV, to those of a filter; and the task, watched to its end.
// Arguments: a resource, the device that takes it (it stops half-way until the task was paused), one that is away.
import { check, expect, given, run, same, told } from './harness.mjs';

const [resource, there, away] = given;
const csv = (text) => ({ name: 'devices.csv', mimeType: 'text/csv', buffer: Buffer.from(text) });

/** Fills in a task for the devices of a CSV and asks for its preview. */
async function preview(page, file) {
  await page.goto(`/deliver?resource=${resource}`);
  await page.check('#to-csv');
  await page.setInputFiles('#file', file);
  await page.click('button:text-is("Preview")');
}

run(async (open) => {
  const page = await open();
  await page.goto(`/deliver?resource=${resource}`);
  await check(page, 'deliver');
  await page.fill('#device', 'nobody');
  await page.click('button:text-is("Preview")');
  await page.waitForSelector('#device-wrong');
  await page.fill('#device', '');
  await page.type('#device', there.slice(0, 2));
  await page.waitForSelector(`#devices option[value="${there}"]`, { state: 'attached' });
  await page.fill('#device', there);
  await page.click('summary');
  await page.fill('[name="policy.max_in_progress"]', 'many');
  await page.click('button:text-is("Preview")');
  await page.waitForSelector('[aria-invalid]');
  expect((await page.textContent('main')).includes('must be a number'), 'a wrong number is marked');
  await page.fill('[name="policy.max_in_progress"]', '5');
  await check(page, 'deliver-policy');
  await page.click('button:text-is("Preview")');
  await page.waitForSelector('button:text-is("Start")');
  const plan = await page.textContent('main');
  expect(plan.includes('goes to 1 device of the product'), `the preview says what will happen: ${plan}`);
  expect(plan.includes('At most 5 devices take it at a time.'), 'and how');
  await check(page, 'deliver-preview');
  await page.click('button:text-is("Start")');
  await page.waitForURL(/note=started/);

  // The device takes half of it: the page shows that without being loaded anew.
  await page.locator('.percent', { hasText: /^[1-9]\d? %$/ }).first().waitFor();
  await check(page, 'task');
  await page.click('button:text-is("Pause")');
  await page.waitForSelector('button:text-is("Resume")');
  same((await page.textContent('#state')).trim(), 'Paused', 'the state after pausing');
  await page.locator('.why', { hasText: 'The task is paused.' }).waitFor();
  await page.click('button:text-is("Resume")');
  await page.waitForURL(/note=resumed/);
  await page.locator('#state', { hasText: 'Finished' }).waitFor();
  await page.waitForSelector('summary:text-is("Delete the task")');
  same(await page.textContent('.percent'), '100 %', 'the end');
  await page.click(`tbody a:text-is("${there}")`);
  expect(await page.locator('tbody tr').count() >= 3, 'steps of the timeline');
  await check(page, 'delivery');

  // Files that cannot be used: each says why, and nothing starts.
  await preview(page, csv(`DeviceName\n${there}\nnobody\n${there}\n=1+1\n<script>alert(1)</script>\n`));
  await page.waitForSelector('#rows');
  same(await page.locator('#rows tbody tr').count(), 4, 'rows that cannot be used');
  expect((await page.textContent('#rows')).includes('<script>alert(1)</script>'), 'a script is a text');
  await check(page, 'deliver-rows');
  const many = Array.from({ length: 10_001 }, (_, index) => `d${index}`).join('\n');
  await preview(page, csv(`DeviceName\n${many}`));
  await page.waitForSelector('#file-wrong');
  expect((await page.textContent('#file-wrong')).includes('more than 10000 rows'), '10,001 rows');
  await preview(page, { ...csv(''), buffer: Buffer.from('\ufeffDeviceName\n', 'utf16le') });
  await page.waitForSelector('#file-wrong');
  expect((await page.textContent('#file-wrong')).includes('not UTF-8'), 'another encoding');
  await preview(page, csv(''));
  await page.waitForSelector('#file-wrong');
  await page.goto('/tasks');
  same(await page.locator('tbody tr').count(), 1, 'no other task was made');

  await preview(page, csv(`DeviceName\r\n${away}\r\n`));
  await page.waitForSelector('button:text-is("Start")');
  await page.click('button:text-is("Change")');
  await page.waitForSelector('#deliver');
  expect(await page.isChecked('#to-csv'), 'what was filled in is still there');
  await page.setInputFiles('#file', csv(`DeviceName\r\n${away}\r\n`));
  await page.click('button:text-is("Preview")');
  await page.click('button:text-is("Start")');
  await page.waitForURL(/note=started/);
  await page.locator('.why', { hasText: 'The device is not connected.' }).waitFor();
  await page.click('button:text-is("Cancel the chosen")');
  await page.waitForSelector('[role=alert]');
  same(await told(page), 'No device was chosen. Nothing was changed.', 'nobody was chosen');
  await page.check('[data-all]');
  await page.click('button:text-is("Cancel the chosen")');
  await page.waitForURL(/note=canceled/);
  await page.waitForSelector('td .state.failed');
  same(await page.textContent('.why'), 'Canceled by an operator.', 'the reason');
  await page.check('[name=chosen]');
  await page.click('button:text-is("Retry the chosen")');
  await page.waitForURL(/note=retried/);
  same(await page.textContent('tbody td.number'), '2', 'the second attempt');
  await page.click('.tabs .state.pending');
  same(await page.locator('tbody tr').count(), 1, 'pending ones');
  await page.click('.tabs .state.delivered');
  same(await page.textContent('.empty'), 'No device is in this state.', 'delivered ones');
  const [report] = await Promise.all([page.waitForEvent('download'), page.click(':is(a, button, summary):text-is("Export as CSV")')]);
  expect(report.suggestedFilename().endsWith('.csv'), 'the report');

  // Without a script, on a small screen: a filter, and the end of a task by hand.
  const small = await open({ width: 390, script: false, dark: true });
  await small.goto('/tasks');
  await small.click('tbody a');
  await small.click('summary');
  await small.click('button:text-is("Cancel all that is open")');
  await small.waitForURL(/note=canceled/);
  await small.goto(`/deliver?resource=${resource}`);
  await small.check('#to-filter');
  await check(small, 'deliver');
  await small.fill('[name="filter.name"]', `${away}*`);
  await small.click('button:text-is("Preview")');
  await check(small, 'deliver-preview');
  await small.click('button:text-is("Start")');
  await small.waitForURL(/note=started/);
  const live = await open({ width: 390 });
  await live.goto('/tasks');
  same(await live.locator('tbody tr').count(), 3, 'all tasks');
  await check(live, 'tasks');
  await live.click('tbody a');
  await live.waitForSelector('tbody tr');
  await check(live, 'task');
  await live.click(':is(a, button, summary):text-is("Cancel the task")');
  await live.click('button:text-is("Cancel all that is open")');
  await live.waitForURL(/note=canceled/);
  await live.click(':is(a, button, summary):text-is("Delete the task")');
  await live.click('details button');
  await live.waitForURL(/\/tasks\?note=deleted/);
  await page.goto('/tasks?run=finished');
  await check(page, 'tasks');
});
