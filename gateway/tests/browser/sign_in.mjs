// The ways in and out: wrong passwords, the first one, the session's end.
import { base, check, expect, run, same, secret, signIn, told } from './harness.mjs';

run(async (open) => {
  const page = await open({ as: null });
  await page.goto('/resources?text=a');
  same(new URL(page.url()).pathname, '/sign-in', 'a stranger is sent to the sign-in');
  expect((await page.textContent('main')).includes('First time here?'), 'the first run has a hint');
  await check(page, 'sign-in');
  await page.keyboard.type('admin');
  await page.keyboard.press('Tab');
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await page.waitForSelector('[role=alert]');
  same(await told(page), 'The name is unknown or the password is wrong.', 'a wrong password');
  same(await page.inputValue('#name'), 'admin', 'the name stays');
  same(await page.inputValue('#password'), '', 'the password does not');
  await check(page, 'sign-in-refused');

  await page.fill('#password', secret);
  await page.click('main button');
  await page.waitForURL('**/resources?text=a');
  const [cookie] = await page.context().cookies();
  expect(cookie.httpOnly && cookie.sameSite === 'Strict', 'the cookie is for this site alone');

  await page.click('header button');
  await page.waitForURL('**/sign-in?left=1');
  same(await told(page), 'You are signed out.', 'after signing out');
  expect(!(await page.textContent('main')).includes('First time'), 'the hint is gone');
  await page.context().addCookies([cookie]);
  await page.goto('/');
  same(new URL(page.url()).pathname, '/sign-in', 'a session that was ended opens nothing');
  expect((await told(page)).startsWith('Your session has ended'), 'and it is said');

  const small = await open({ width: 390, as: null, script: false, dark: true });
  await signIn(small, 'admin', secret);
  same(small.url(), `${base}/`, 'without a script');
  await small.goto('/no-such-page');
  same(await small.textContent('h1'), 'There is no such page', 'a wrong address');
  await check(small, 'no-page');
});
