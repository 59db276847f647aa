'use strict';

// The compiled part: beside this file where it was built, else in the package of this platform.

const { platform, arch, report } = process;

function name() {
  if (platform !== 'linux') return `${platform}-${arch}`;
  // Only glibc tells its version here.
  const glibc = report?.getReport().header.glibcVersionRuntime;
  return `linux-${arch}-${glibc ? 'gnu' : 'musl'}`;
}

function load() {
  const here = name();
  const missing = [];
  for (const place of [`./gitlock.${here}.node`, `gitlock-${here}`]) {
    try {
      return require(place);
    } catch (error) {
      // What is there and can't be loaded tells why.
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
      missing.push(error);
    }
  }
  throw new Error(
    `gitlock has no compiled part for ${here}: the package gitlock-${here} isn't installed. ` +
      'Install with optional dependencies, on Linux or macOS with x64 or arm64, or build it from source.',
    { cause: missing },
  );
}

module.exports = load();
