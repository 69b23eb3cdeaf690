/**
 * Names of images as Docker writes them: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`. A registry has a dot, a colon or is `localhost`; without one it
 * is `docker.io`, where a repository of one word lies in `library/`. Without tag and digest the tag is `latest`.
 */
import { SluiceError } from '../../src/errors.ts';

export interface Reference {
  /** `docker.io`, `localhost:5000` */
  readonly registry: string;
  /** `library/busybox` */
  readonly repository: string;
  readonly tag?: string;
  /** `sha256:…` */
  readonly digest?: string;
}

export const DEFAULT_REGISTRY = 'docker.io';
const DEFAULT_TAG = 'latest';
const NAME_CHARS_MAX = 255;

const HOST =
  /^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
export const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Fails with `image.reference`, saying what is wrong. */
export function parseReference(text: string): Reference {
  const wrong = (why: string): SluiceError =>
    new SluiceError('image.reference', `${JSON.stringify(text.slice(0, 300))} is no name of an image: ${why}`, {
      reference: text.slice(0, 300),
    });
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !DIGEST.test(digest)) throw wrong('a digest is sha256: and 64 lower-case hex digits');
  let name = at < 0 ? text : text.slice(0, at);
  const colon = name.lastIndexOf(':');
  let tag: string | undefined;
  if (colon > name.lastIndexOf('/')) {
    tag = name.slice(colon + 1);
    name = name.slice(0, colon);
    if (!TAG.test(tag)) throw wrong('a tag has letters, digits, "_", "." and "-", at most 128');
  }
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const hasHost = slash > 0 && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  const host = hasHost ? first : DEFAULT_REGISTRY;
  let repository = hasHost ? name.slice(slash + 1) : name;
  if (!HOST.test(host)) throw wrong(`${host} is no address of a registry`);
  const registry = host === 'index.docker.io' ? DEFAULT_REGISTRY : host;
  if (repository !== repository.toLowerCase()) throw wrong('a repository is in lower case');
  if (!REPOSITORY.test(repository))
    throw wrong('a repository has words of lower-case letters and digits, joined by ".", "_", "-" and "/"');
  if (registry === DEFAULT_REGISTRY && !repository.includes('/')) {
    if (/^[0-9a-f]{64}$/.test(repository)) throw wrong('64 hex digits are an id');
    repository = `library/${repository}`;
  }
  if (registry.length + repository.length >= NAME_CHARS_MAX) throw wrong(`it is longer than ${NAME_CHARS_MAX}`);
  return { registry, repository, tag: tag ?? (digest === undefined ? DEFAULT_TAG : undefined), digest };
}

/** `docker.io/library/busybox`, without tag and digest. */
export const repositoryName = ({ registry, repository }: Reference): string => `${registry}/${repository}`;

/** In full: `docker.io/library/busybox:latest`; a digest stands instead of the tag. */
export const fullName = (reference: Reference): string =>
  reference.digest === undefined
    ? `${repositoryName(reference)}:${reference.tag}`
    : `${repositoryName(reference)}@${reference.digest}`;

/** What a registry is asked for: the digest, else the tag. */
export const wantedOf = (reference: Reference): string => reference.digest ?? reference.tag!;

/** As people type it: `busybox:latest`, `localhost:5000/x:1`. */
export function familiarName(full: string): string {
  const short = full.startsWith(`${DEFAULT_REGISTRY}/`) ? full.slice(DEFAULT_REGISTRY.length + 1) : full;
  return short.startsWith('library/') ? short.slice('library/'.length) : short;
}
