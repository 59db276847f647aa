// `node scripts/pack.mjs OUT ADDON`: packs the package, and that of this platform with the compiled part, as they
// would be published. Prints the tarballs' names.

import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

const here = join(import.meta.dirname, '..');
const out = resolve(process.argv[2]);
const addon = resolve(process.argv[3]);
const platform = [process.platform, process.arch, ...(process.platform === 'linux' ? ['gnu'] : [])].join('-');

const read = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
const write = (folder, value) => writeFileSync(join(folder, 'package.json'), `${JSON.stringify(value, null, 2)}\n`);

function pack(folder) {
  const licences = ['LICENSE-APACHE', 'LICENSE-MIT'];
  const described = read(folder);
  write(folder, { ...described, files: [...described.files, ...licences] });
  for (const name of licences) copyFileSync(join(here, '..', name), join(folder, name));
  const [packed] = JSON.parse(execFileSync('npm', ['pack', '--json', '--pack-destination', out], { cwd: folder }));
  return join(out, basename(packed.filename));
}

rmSync(out, { recursive: true, force: true });
const whole = join(out, 'gitlock');
mkdirSync(whole, { recursive: true });
cpSync(join(here, 'lib'), join(whole, 'lib'), { recursive: true, filter: (file) => !file.endsWith('.node') });
copyFileSync(join(here, 'README.md'), join(whole, 'README.md'));
const { scripts, devDependencies, napi, ...published } = read(here);
// One for each platform; npm installs the one that fits.
const names = readdirSync(join(here, 'npm')).map((folder) => read(join(here, 'npm', folder)).name);
published.optionalDependencies = Object.fromEntries(names.map((name) => [name, published.version]));
write(whole, published);

const part = join(out, platform);
cpSync(join(here, 'npm', platform), part, { recursive: true });
copyFileSync(addon, join(part, `gitlock.${platform}.node`));
console.log([pack(whole), pack(part)].join('\n'));
