// Devices: finding, registering, editing, freezing, kicking and deleting them, and their credentials. Arguments: a
// certificate's file, a device that is connected, one that something is being delivered to.
import { check, expect, given, run, same, told } from './harness.mjs';

const [certificate, connected, busy] = given;
const FINGERPRINT = 'd31d066619488f2b6af5c71e540d230947f3f007b86297f6e9756be021772daa';

async function register(page, node, fields = {}) {
  await page.goto('/devices/new?product=P');
  await page.fill('#node_id', node);
  for (const [name, value] of Object.entries(fields)) await page.fill(`#${name}`, value);
}

const submit = (page) => page.click('main form button.primary');

run(async (open) => {
  const page = await open();
  await page.goto('/devices/new');
  await check(page, 'device-new');
  await register(page, 'bad node', { secret: 'short', secret_again: 'other', name: '=1+1' });
  await submit(page);
  await page.waitForSelector('#secret_again-wrong');
  same(await page.textContent('#secret_again-wrong'), 'The two secrets are not the same.', 'two secrets');
  same(await page.textContent('#node_id-wrong'), "Node id may hold only letters, digits, '_', ':' and '-'.", 'the node id');
  same(await page.inputValue('#secret'), '', 'a secret never comes back');
  same(await page.inputValue('#name'), '=1+1', 'the rest does');
  await check(page, 'device-new-refused');
  await register(page, 'n1', { secret: 'short', secret_again: 'short' });
  await submit(page);
  await page.waitForSelector('#secret-wrong');
  expect((await page.textContent('#secret-wrong')).startsWith('Secret is not 8 to 32'), 'the rule of secrets');
  await register(page, 'n1', { secret: 'a-given-secret', secret_again: 'a-given-secret', name: '<b>First</b>' });
  await submit(page);
  await page.waitForSelector('#secret');
  same(await page.textContent('#secret'), 'a-given-secret', 'it is shown once');
  await check(page, 'device-secret');
  await page.click(':is(a, button, summary):text-is("Open the device")');
  expect(!(await page.content()).includes('a-given-secret'), 'and never again');
  expect((await page.textContent('main')).includes('<b>First</b>'), 'a text with a tag is a text');
  await check(page, 'device');
  await register(page, 'n1');
  await submit(page);
  await page.waitForSelector('#node_id-wrong');
  same(await page.textContent('#node_id-wrong'), 'There is such a device: device P_n1.', 'a taken name');

  // With a certificate: as a file, as text, and never both.
  await register(page, 'n2', { fingerprint: FINGERPRINT });
  await page.setInputFiles('#file', certificate);
  await submit(page);
  await page.waitForSelector('#file-wrong');
  same(await page.textContent('#file-wrong'), 'Give the fingerprint or the certificate, not both.', 'not both');
  await register(page, 'n2');
  await page.setInputFiles('#file', { name: 'key.pem', mimeType: 'text/plain', buffer: Buffer.from('-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n') });
  await submit(page);
  await page.waitForSelector('#file-wrong');
  expect((await page.textContent('#file-wrong')).includes('private key'), 'no private key');
  await register(page, 'n2');
  await page.setInputFiles('#file', certificate);
  await submit(page);
  await page.waitForSelector('dl.facts');
  const facts = await page.textContent('dl.facts');
  expect(facts.includes(FINGERPRINT) && facts.includes('meter-1'), 'what the certificate says');
  await check(page, 'device-certificate');

  // Credentials are replaced one of two at a time.
  await page.click(':is(a, button, summary):text-is("Open the device")');
  expect((await page.textContent('main')).includes(FINGERPRINT), 'a fingerprint is no secret');
  await page.click('main a[href$="/credentials"]');
  await page.selectOption('#which', 'secondary');
  await page.fill('#fingerprint', 'ab:cd');
  await submit(page);
  await page.waitForSelector('#fingerprint-wrong');
  await check(page, 'device-credentials');
  await page.fill('#fingerprint', FINGERPRINT.replace('d3', 'd4').toUpperCase());
  await submit(page);
  await page.waitForURL(/note=fingerprint-replaced/);
  await page.click('main a[href$="/credentials"]');
  await page.click('summary');
  await page.click('details button');
  await page.waitForURL(/note=credential-cleared/);
  await page.goto('/devices/P_n1/credentials');
  await submit(page);
  await page.waitForSelector('#secret');
  expect(/^[0-9a-f]{32}$/.test(await page.textContent('#secret')), 'a new secret was made');

  // Its connection.
  await page.goto(`/devices/${connected}`);
  const session = await page.textContent('main');
  for (const part of ['Online', 'MQTT 5', 'P/on/#', 'QoS 1']) expect(session.includes(part), part);
  await check(page, 'device-online');
  await page.click(':is(a, button, summary):text-is("End the connection")');
  await page.waitForURL(/note=device-kicked/);
  await page.click('summary');
  await page.click('button:text-is("Freeze the device")');
  await page.waitForURL(/note=device-frozen/);
  expect((await page.textContent('.head')).includes('Frozen'), 'it is frozen');
  await page.click('button:text-is("Unfreeze")');
  await page.waitForURL(/note=device-unfrozen/);

  // What is being delivered keeps it.
  await page.goto(`/devices/${busy}`);
  expect((await page.textContent('main')).includes('Pending'), 'its delivery is listed');
  await page.click('main a:text-is("Delete")');
  await page.click('button.danger');
  await page.waitForSelector('[role=alert]');
  expect((await told(page)).startsWith('The device cannot go'), 'it is in use');
  await check(page, 'device-in-use');

  // Two operators edit at once.
  const other = await open();
  await page.goto('/devices/P_n1/edit');
  await other.goto('/devices/P_n1/edit');
  await page.fill('#name', 'first');
  await page.click(':is(a, button, summary):text-is("Save")');
  await page.waitForURL(/note=saved/);
  await other.fill('#name', 'second');
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForSelector('[role=alert]');
  same(await other.inputValue('#name'), 'first', 'the second operator sees what is there');
  await other.fill('#name', 'x'.repeat(65));
  await other.click(':is(a, button, summary):text-is("Save")');
  await other.waitForSelector('#name-wrong');

  await page.goto('/devices');
  await check(page, 'devices');
  await page.fill('#text', 'N1');
  await page.click('main form button');
  same(await page.locator('tbody tr').count(), 1, 'one is found');
  await page.goto('/devices?status=frozen&product=P');
  same(await page.textContent('.empty'), 'No device fits the filter.', 'nothing is found');
  same(await page.inputValue('#product'), 'P', 'the filter stays');
  await page.goto('/devices/no-such');
  same(await page.textContent('h1'), 'There is no such thing', 'an unknown device');
  await page.goto('/devices/..%2f..%2fetc');
  same(await page.textContent('h1'), 'There is no such page', 'a name that is none');

  // Without a script, on a small screen.
  const small = await open({ width: 390, script: false, dark: true });
  await register(small, 'n3');
  await check(small, 'device-new');
  await submit(small);
  await small.waitForSelector('#secret');
  await check(small, 'device-secret');
  await small.click(':is(a, button, summary):text-is("Open the device")');
  await check(small, 'device');
  await small.click('main :is(a, button, summary):text-is("Delete")');
  await small.click('button.danger');
  await small.waitForURL(/devices\?note=deleted/);
  const live = await open({ width: 390 });
  await live.goto('/devices');
  await check(live, 'devices');
  await live.goto('/devices/P_n2');
  await check(live, 'device-x509');
});
