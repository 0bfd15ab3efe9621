/** Files of this folder, unpacked. */

/** The bytes at `url`, relative to this module; a gzip file comes unpacked. */
export async function bytes(url) {
  const response = await fetch(new URL(url, import.meta.url));
  if (!response.ok) throw new Error(`${url} can't be read (status ${response.status})`);
  const packed = new Uint8Array(await response.arrayBuffer());
  // Some hosts unpack .gz files on the way; a gzip file begins with 1f 8b.
  if (packed[0] !== 0x1f || packed[1] !== 0x8b) return packed;
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

export async function text(url) {
  return new TextDecoder().decode(await bytes(url));
}

export async function json(url) {
  return JSON.parse(await text(url));
}
