// The overview.
import { check, run, same } from './harness.mjs';

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
});
