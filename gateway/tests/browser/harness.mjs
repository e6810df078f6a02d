// What every browser test of the console stands on: Chromium, signing in, and what every page has to fulfil.
//
// Run by tests/it/console.rs: node <page>.mjs <libraries> <address> <password> [argument ...]. Ends with 0 or with the
// first thing that is wrong. With HEADGATE_SCREENSHOTS set to a directory, `check` leaves a picture of each page there.
import { createRequire } from 'node:module';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

const [libraries, address, password, ...rest] = process.argv.slice(2);
const require = createRequire(join(libraries, 'node_modules/'));
const { chromium } = require('playwright-core');
const axe = require('axe-core').source;
const pictures = process.env.HEADGATE_SCREENSHOTS;

/** Arguments of this test. */
export const given = rest;
/** Where the console is. */
export const base = address;
/** What the operator `admin` signs in with. */
export const secret = password;

/** Fails with a sentence. */
export function expect(holds, sentence) {
  if (!holds) throw new Error(sentence);
}

/** Fails unless two values are equal. */
export function same(found, wanted, sentence) {
  expect(found === wanted, `${sentence}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

/** Opens a browser for the time of `test`, which is given `open`. */
export async function run(test) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--force-color-profile=srgb'],
  });
  // Some steps of a browser have no limit of their own.
  const watchdog = setTimeout(() => {
    console.error('the test took too long');
    process.exit(1);
  }, 100_000);
  try {
    await test((options = {}) => open(browser, options));
  } catch (error) {
    console.error(error.stack ?? String(error));
    process.exitCode = 1;
  } finally {
    await browser.close();
    clearTimeout(watchdog);
  }
}

/**
 * A window: `width` in pixels, `script: false` for a browser without, `dark: true` for the dark colours, `as` for the
 * operator's name, `null` for nobody. Whatever a page complains of, errors of the script and breaches of the content
 * security policy included, fails the next `check`.
 */
async function open(browser, { width = 1280, script = true, dark = false, as = 'admin', password: other } = {}) {
  const context = await browser.newContext({
    baseURL: address,
    viewport: { width, height: width < 600 ? 844 : 800 },
    javaScriptEnabled: script,
    colorScheme: dark ? 'dark' : 'light',
    locale: 'en-GB',
    acceptDownloads: true,
  });
  context.setDefaultTimeout(20000);
  const page = await context.newPage();
  page.complaints = [];
  page.hasScript = script;
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    // An answer that says what is wrong with a form is no fault of the page.
    const refused = /status of (401|403|404|409|412|413|422|429)/.test(message.text());
    if (message.type() === 'error' && !refused) page.complaints.push(message.text());
  });
  if (as) await signIn(page, as, other ?? password);
  return page;
}

/** Signs in as whoever. */
export async function signIn(page, name, word) {
  await page.goto('/sign-in');
  await page.fill('#name', name);
  await page.fill('#password', word);
  await page.click('main button');
  await page.waitForURL((url) => url.pathname !== '/sign-in');
}

/** Checks what every page has to fulfil, and takes its picture. */
export async function check(page, name) {
  same(page.complaints.join('\n'), '', `${name}: the page complains`);
  const width = page.viewportSize().width;
  same(await page.locator('h1').count(), 1, `${name}: first headings`);
  // Where there is no script, nothing can be evaluated either.
  if (page.hasScript) {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(wide <= width, `${name}: ${wide} pixels wide on a screen of ${width}`);
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    const serious = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' | ')}`);
    same(told.join('\n'), '', `${name}: accessibility`);
  }
  if (pictures) {
    mkdirSync(pictures, { recursive: true });
    await page.screenshot({ path: join(pictures, `${name}-${width}.png`), fullPage: width < 600 });
  }
}

/** The text of what an operator is told. */
export async function told(page) {
  return (await page.locator('.notice').first().innerText()).trim();
}
