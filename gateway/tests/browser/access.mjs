// Operators, API tokens, the audit and nodes. Arguments: a viewer's name and password.
import { check, expect, given, run, same, secret, told } from './harness.mjs';

const [viewer, password] = given;
const submit = (page) => page.click('main form button.primary');

run(async (open) => {
  const page = await open();
  await page.goto('/operators/new');
  await page.fill('#name', 'a/b');
  await page.fill('#password', 'one password here');
  await page.fill('#password_again', 'another');
  await submit(page);
  await page.waitForSelector('#password_again-wrong');
  same(await page.inputValue('#password'), '', 'a password never comes back');
  await page.fill('#password', 'short');
  await page.fill('#password_again', 'short');
  await page.fill('#name', 'new');
  await submit(page);
  await page.waitForSelector('#password-wrong');
  await check(page, 'operator-new-refused');
  await submit(page);
  await page.waitForSelector('#secret');
  const made = await page.textContent('#secret');
  await check(page, 'operator-password');
  await page.click(':is(a, button, summary):text-is("Open the operator")');
  same(await page.textContent('h1'), 'new', 'an operator may have any name');
  await page.selectOption('#role', 'viewer');
  await submit(page);
  await page.waitForURL(/note=saved/);
  await check(page, 'operator');
  const other = await open({ as: 'new', password: made });
  same(await other.locator('nav >> text=Operators').count(), 0, 'a viewer is not offered these pages');
  for (const path of ['/operators', '/tokens', '/audit', '/nodes/x/drain']) {
    await other.goto(path);
    same(await other.textContent('h1'), 'Your role does not allow this', path);
  }
  await other.goto('/nodes');
  same(await other.locator('main button').count(), 0, 'and changes no node');

  // One's own password.
  await other.goto('/');
  await other.click('header a[href="/account"]');
  same(await other.textContent('h1'), 'Your account', 'the name leads there');
  await other.fill('#current', 'not this');
  await other.fill('#password', 'another-password');
  await other.fill('#password_again', 'another-password');
  await submit(other);
  await other.waitForSelector('#current-wrong');
  same(await other.inputValue('#password'), '', 'a password never comes back');
  await check(other, 'account-refused');
  const elsewhere = await open({ as: 'new', password: made, script: false, width: 390, dark: true });
  await elsewhere.goto('/account');
  await check(elsewhere, 'account');
  await other.fill('#current', made);
  await other.fill('#password', 'another-password');
  await other.fill('#password_again', 'another-password');
  await submit(other);
  await other.waitForURL(/note=password-changed/);
  await check(other, 'account');
  await elsewhere.goto('/account');
  same(new URL(elsewhere.url()).pathname, '/sign-in', 'the other session is over');

  // Who is locked out is out; the last administrator cannot be. The operator was changed meanwhile, by another password.
  await page.goto('/operators/named/new');
  await page.uncheck('#enabled');
  await submit(page);
  await page.waitForURL(/note=saved/);
  await page.waitForFunction(() => document.querySelector('.head .state').textContent === 'Disabled');
  await other.goto('/nodes');
  same(new URL(other.url()).pathname, '/sign-in', 'the session is over');
  await page.goto('/operators/named/admin');
  await page.selectOption('#role', 'viewer');
  await submit(page);
  await page.waitForSelector('[role=alert]');
  expect((await told(page)).startsWith('No administrator would be left'), 'the last administrator stays');
  await check(page, 'operator-last');
  await page.goto('/operators/named/new');
  await page.click('summary');
  await page.click('details button');
  await page.waitForURL(/operators\?note=deleted/);
  await check(page, 'operators');

  // Tokens.
  await page.goto('/tokens/new');
  await check(page, 'token-new');
  await page.fill('#name', '<i>ci</i>');
  await page.fill('#expires', '2001-01-01');
  await submit(page);
  await page.waitForSelector('#expires-wrong');
  await page.fill('#expires', '2099-12-31');
  await submit(page);
  await page.waitForSelector('#secret');
  await check(page, 'token-secret');
  await page.click(':is(a, button, summary):text-is("Back to the tokens")');
  expect((await page.textContent('tbody')).includes('2099-12-31'), 'when it ends');
  await check(page, 'tokens');
  await page.click('[aria-label="Revoke <i>ci</i>"]');
  await check(page, 'token-revoke');
  await page.click('button.danger');
  await page.waitForURL(/note=token-revoked/);

  // What was done is in the audit.
  await page.goto('/audit');
  await check(page, 'audit');
  await page.fill('#action', 'token');
  await page.click('main form button');
  const rows = await page.textContent('tbody');
  expect(rows.includes('token.revoke') && rows.includes('<i>ci</i>') && rows.includes('127.0.0.1'), rows);
  expect(!rows.includes('operator.'), 'nothing else');
  await page.fill('#until', '2001-01-01');
  await page.click('main form button');
  expect((await page.textContent('.empty')).startsWith('Nothing that was changed fits'), 'nothing so early');

  // Nodes.
  await page.goto('/nodes');
  expect((await page.textContent('main')).includes('Ready'), 'it is ready');
  await check(page, 'nodes');
  await page.click(':is(a, button, summary):text-is("Read the certificates anew")');
  await page.waitForURL(/note=certificates-/);

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  for (const path of ['operators', 'operators/new', 'operators/named/admin', 'tokens', 'tokens/new', 'audit', 'nodes']) {
    await small.goto(`/${path}`);
    await check(small, path.replaceAll('/', '-'));
  }
  const live = await open({ width: 390 });
  for (const path of ['operators/named/admin', 'audit', 'nodes']) {
    await live.goto(`/${path}`);
    await check(live, `${path.replaceAll('/', '-')}-live`);
  }
  await live.goto(`/operators/named/${viewer}`);
  await live.fill('#password', secret.padEnd(12, 'x'));
  await live.fill('#password_again', secret.padEnd(12, 'x'));
  await live.click(':is(a, button, summary):text-is("Set a new password")');
  await small.goto('/nodes');
  await small.click(':is(a, button, summary):text-is("Drain")');
  await check(small, 'node-drain');
  await small.click('button.danger');
  await small.waitForSelector('.state.draining');
  expect(password.length > 0, 'a password');
});
