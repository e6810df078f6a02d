// The overview.
import { check, expect, run, same } from './harness.mjs';

run(async (open) => {
  for (const options of [{ width: 1280 }, { width: 390, dark: true }]) {
    const page = await open(options);
    await page.goto('/');
    same(await page.textContent('h1'), 'Overview', 'the heading');
    same(await page.textContent('[aria-current]'), 'Overview', 'the place in the navigation');
    await page.keyboard.press('Tab');
    same(await page.evaluate(() => document.activeElement.className), 'skip', 'the first stop of the keyboard');
    await check(page, 'overview');
  }
  // It moves by itself, and leaves the operator where they are.
  const page = await open({ width: 390 });
  await page.goto('/');
  const asked = [];
  page.on('request', (request) => { if (request.resourceType() === 'fetch') asked.push(request.headers()['x-headgate-refresh']); });
  const link = page.locator('nav a', { hasText: 'Audit' });
  await link.focus();
  await page.evaluate(() => { window.loaded = 'once'; scrollTo(0, 200); });
  const before = await page.textContent('footer');
  await page.waitForFunction((text) => document.querySelector('footer').textContent !== text, before);
  const [loaded, place, focused] = await page.evaluate(() => [window.loaded, scrollY, document.activeElement.textContent]);
  same(`${loaded} ${place} ${focused}`, 'once 200 Audit', 'where the operator is');
  expect(asked.length > 0 && asked.every((one) => one === '1'), `what was asked for: ${asked}`);
  await check(page, 'overview-later');
});
