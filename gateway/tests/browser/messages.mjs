// The messages of a device, as they pass. Argument: a device that publishes ten times a second.
import { check, expect, given, run, same } from './harness.mjs';

const [device] = given;
const rows = (page) => page.locator('[data-messages] tbody tr');

run(async (open) => {
  const page = await open();
  await page.goto(`/devices/${device}`);
  await rows(page).nth(3).waitFor();
  const text = await rows(page).first().innerText();
  for (const part of ['from it', 'P/on/up', 'QoS 1', '{"temperature": 21} <b>']) expect(text.includes(part), `${part} in ${text}`);
  await check(page, 'device-messages');
  // At most two changes a second, however many messages pass.
  const changes = await page.evaluate(() => new Promise((done) => {
    let count = 0;
    const table = document.querySelector('[data-messages] tbody');
    new MutationObserver((list) => { count += list.some((one) => one.addedNodes.length > 0); }).observe(table, { childList: true });
    setTimeout(() => done(count), 3000);
  }));
  expect(changes >= 2 && changes <= 7, `${changes} changes within three seconds`);
  await page.waitForFunction(() => document.querySelectorAll('[data-messages] tbody tr').length === 50);

  // Without a script the page that is loaded anew shows what has passed since.
  const small = await open({ width: 390, script: false, dark: true });
  await small.goto(`/devices/${device}`);
  same(await rows(small).count(), 50, 'the latest messages');
  expect((await small.textContent('main')).includes('Load the page anew'), 'and how to see more');
  await check(small, 'device-messages');
});
