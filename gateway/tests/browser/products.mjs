// Products: making, editing and deleting them. Arguments: a viewer's name and password.
import { base, check, expect, given, run, same, told } from './harness.mjs';

const [viewer, password] = given;

run(async (open) => {
  const page = await open();
  await page.goto('/products');
  expect((await page.textContent('.empty')).startsWith('There is no product yet.'), 'the empty list');
  await page.click(':is(a, button, summary):text-is("Make a product")');
  await check(page, 'product-new');
  await page.fill('#id', 'not/legal');
  await page.fill('#name', '<img src=x onerror=alert(1)>');
  await page.fill('#reachable_after_uplink_secs', 'soon');
  await page.click('main button.primary');
  await page.waitForSelector('#id-wrong');
  same(await page.textContent('#id-wrong'), "Product id may hold only letters, digits, '_' and '-'.", 'the rule of ids');
  expect((await page.textContent('#reachable_after_uplink_secs-wrong')).startsWith('Give a whole number'), 'both are marked');
  same(await page.inputValue('#name'), '<img src=x onerror=alert(1)>', 'what was filled in stays');
  await page.fill('#id', 'meter');
  await page.fill('#reachable_after_uplink_secs', '30');
  await page.uncheck('#auth_kinds-secret');
  await page.fill('#publish', 'a/#/b');
  await page.click('main button.primary');
  await page.waitForSelector('#auth_kinds-wrong');
  await check(page, 'product-new-refused');
  await page.check('#auth_kinds-x509');
  await page.check('#auth_kinds-secret');
  await page.check('#transports-coap');
  await page.click('main button.primary');
  await page.waitForSelector('#publish-wrong');
  expect((await page.textContent('#publish-wrong')).includes('a/#/b'), 'the filter is named');
  await page.fill('#publish', '{product}/{device}/x/#\nfleet/state\n');
  await page.click('main button.primary');
  await page.waitForURL(/products\/meter\?note=product-added/);
  const text = await page.textContent('main');
  expect(text.includes('<img src=x'), 'a text with a tag is a text');
  for (const part of ['MQTT; CoAP', 'Secret; X.509 certificate', 'fleet/state', '30 s']) expect(text.includes(part), part);
  await check(page, 'product');

  // Two operators edit at once: the second one is told, and nothing of hers is stored.
  const other = await open();
  await page.click('main :is(a, button, summary):text-is("Edit")');
  await other.goto(page.url());
  await page.fill('#name', 'Meter');
  await page.click(':is(a, button, summary):text-is("Save")');
  await page.waitForURL(/note=saved/);
  await other.fill('#name', 'Other');
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForSelector('[role=alert]');
  expect((await told(other)).startsWith('Someone else changed this'), 'the second operator is told');
  same(await other.inputValue('#name'), 'Meter', 'and sees what is there');

  await page.goto('/products/new');
  await page.fill('#id', 'meter');
  await page.fill('#name', 'again');
  await page.click('main button.primary');
  await page.waitForSelector('#id-wrong');
  same(await page.textContent('#id-wrong'), 'Another product has this id.', 'a taken id');
  await page.goto('/products');
  await check(page, 'products');

  const watcher = await open({ as: viewer, password });
  await watcher.goto('/products');
  same(await watcher.locator('text=Make a product').count(), 0, 'a viewer is offered nothing');
  await watcher.goto('/products/new');
  same(await watcher.textContent('h1'), 'Your role does not allow this', 'nor given');

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  await small.goto('/products/new');
  await check(small, 'product-new');
  await small.fill('#id', 'spare');
  await small.fill('#name', 'Spare');
  await small.click('main button.primary');
  await small.waitForURL(/note=product-added/);
  await small.click('main :is(a, button, summary):text-is("Delete")');
  await check(small, 'product-delete');
  await small.click('button.danger');
  await small.waitForURL(`${base}/products?note=deleted`);
  same(await small.locator('tbody tr').count(), 1, 'one is left');
  const live = await open({ width: 390 });
  await live.goto('/products');
  await check(live, 'products');
});
