// The keyboard alone: everything that can be worked is reached by it, and does what it says. Argument: a device.
import { check, expect, given, run, same } from './harness.mjs';

const [device] = given;

/** Goes from stop to stop until one is the element that a selector finds. */
async function reach(page, selector) {
  for (let stops = 0; stops < 150; stops += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return;
  }
  throw new Error(`${selector} is not reached`);
}

/** What can be worked on a page and is no stop of the keyboard. */
async function unreached(page) {
  const all = await page.evaluate(() => {
    const found = [...document.querySelectorAll('a[href], button, input:not([type=hidden], [type=radio]), select, textarea, summary')];
    const shown = found.filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled);
    shown.forEach((one, index) => { one.dataset.stop = index; });
    document.activeElement.blur();
    return shown.map((one) => one.outerHTML);
  });
  const seen = new Set();
  for (let stops = 0; stops < all.length * 4 + 20; stops += 1) {
    await page.keyboard.press('Tab');
    seen.add(await page.evaluate(() => document.activeElement.dataset.stop));
  }
  return all.filter((_, index) => !seen.has(String(index)));
}

run(async (open) => {
  const page = await open();
  for (const path of ['/', '/resources/new', '/deliver', '/tasks', '/devices', '/devices/new', `/devices/${device}`, '/account', '/audit']) {
    await page.goto(path);
    same((await unreached(page)).join('\n'), '', `${path}: out of the keyboard's reach`);
  }
  await page.goto(`/devices/${device}`);
  await reach(page, '.skip');
  await page.keyboard.press('Enter');
  same(await page.evaluate(() => document.activeElement.id), 'main', 'the way past the navigation');
  await reach(page, 'summary');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  expect(outline !== 'none', 'where the keyboard is can be seen');
  await page.keyboard.press('Enter');
  await reach(page, 'form[action$="/freeze"] button');
  await page.keyboard.press('Enter');
  await page.waitForURL(/note=device-frozen/);
  await check(page, 'keyboard');
});
