/**
 * Coded errors. Every failure that leaves a module is a `SluiceError`: a stable `code` (`area.what`), a sentence
 * that says what was tried on what and what the kernel or peer answered, and details for programs.
 * The table below is the whole list; docs/generated/errors.md is made from it and a test fails on a stray code.
 */
export const ERROR_CODES = {
  'request.invalid': [400, 'The request does not fit the schema, or a value in it makes no sense.'],
  'request.toolarge': [413, 'The request body is larger than one MiB.'],
  'request.unsupported': [415, 'The request body is not declared as application/json.'],
  'request.unknown': [404, 'The API has no such path.'],
  'request.method': [405, 'The path does not know this method; the header Allow names those it knows.'],
  'request.slow': [408, 'The request did not arrive whole within its time limit.'],
  'request.timeout': [504, 'The daemon did not finish the request within its time limit; it may still take effect.'],
  'request.busy': [503, 'Too many requests wait or watch at once.'],
  'request.precondition': [
    412,
    'The object was created or changed by somebody else since the revision that was named.',
  ],
  'auth.denied': [403, 'The caller may not do this.'],
  'object.notfound': [404, 'No object of that kind has that name or id.'],
  'object.exists': [409, 'An object of that kind with that name exists and differs from what was asked.'],
  'object.inuse': [409, 'The object is used by others, which are named.'],
  'object.removing': [409, 'The object is being removed.'],
  'object.ambiguous': [409, 'An abbreviated id fits several objects, which are named.'],
  'network.overlap': [409, 'The subnet overlaps another network or a route of the host, which is named.'],
  'network.builtin': [409, 'The networks bridge, host and none cannot be changed or removed.'],
  'network.vni': [
    409,
    'The VXLAN network identifier belongs to another network, or a device that Sluice did not make has it; it is named where it can be seen.',
  ],
  'network.underlay': [
    409,
    'The host has no address that other hosts could reach it by, or its VXLAN port is taken; settings dataPathAddr and vxlanPort.',
  ],
  'address.exhausted': [409, 'The pool has no free address left.'],
  'address.inuse': [409, 'The address is leased to another endpoint, which is named.'],
  'address.contested': [
    409,
    'An address of the endpoint, or a VIP of the service, was given twice while servers of the store took over from each other or the store was lost; the older one stays. Connect the sandbox anew, or remove the service and make it anew.',
  ],
  'address.unsettled': [
    503,
    'The store changed hands, and not every node has said again which addresses are its own: none is given until then, and no network of the cluster goes.',
  ],
  'address.outside': [400, 'The address is not in any subnet of the network.'],
  'pool.exhausted': [409, 'No automatic pool is left that overlaps neither a network nor a route of the host.'],
  'driver.unknown': [400, 'No driver of that name is loaded.'],
  'driver.failed': [502, 'A network or IPAM driver failed; its own message is included.'],
  'driver.timeout': [504, 'A driver did not answer within its time limit.'],
  'driver.open': [503, 'A driver failed repeatedly and is not called for a while (open circuit).'],
  'service.noreplicas': [
    409,
    'The service was made of backends alone: there is no image of which more or fewer could run.',
  ],
  'service.backend': [400, 'A backend names no sandbox and no address that the service could reach.'],
  'image.notfound': [404, 'No image has that name, digest or id here; for a pull: the registry has none either.'],
  'image.reference': [400, 'The name of the image is malformed.'],
  'image.inuse': [409, 'The image is used by containers or has other names, which are named.'],
  'image.platform': [409, 'The image is for another platform; both are named.'],
  'image.archive': [400, 'The archive is corrupt, hostile, or not of a kind that is read here.'],
  'image.manifest': [422, 'A manifest, index or configuration is malformed or of a kind that is not known.'],
  'image.digest': [502, 'Content has another digest or size than what refers to it says.'],
  'image.registry': [502, 'A registry cannot be reached or failed; its own message is included.'],
  'image.denied': [401, 'The registry wants credentials, or others than it was given.'],
  'image.timeout': [504, 'A registry said nothing for too long.'],
  'image.limit': [413, 'The image or archive is larger than what is allowed here.'],
  'image.full': [507, 'The disk that holds the images is full; nothing half-done stays.'],
  'image.damaged': [500, 'The index of the images on disk cannot be read.'],
  'container.running': [409, 'The container runs; it must be stopped first.'],
  'container.stopped': [409, 'The container does not run.'],
  'port.inuse': [409, 'The port of the host is taken; the message says by whom.'],
  'port.address': [400, 'The host has no such address to publish a port on.'],
  'port.unreachable': [
    409,
    'The container is on no network through which the host could reach a published port of it.',
  ],
  'runtime.spec': [
    400,
    'What was asked for makes no container: a limit, capability, mount, device or user that cannot be.',
  ],
  'runtime.notfound': [400, 'The command, working directory or user is not in the container (exit status 127).'],
  'runtime.notexecutable': [400, 'The command of the container cannot be executed (exit status 126).'],
  'runtime.failed': [502, 'The OCI runtime or monitor failed; its own message is included.'],
  'runtime.missing': [501, 'The host cannot run containers: the OCI runtime or the monitor is not there.'],
  'request.upgrade': [426, 'The path speaks a stream of frames: the request asks for it with Connection: Upgrade.'],
  'node.silent': [504, 'Another node did not answer a question in time: its daemon is dead, stalled, or cut off.'],
  'cluster.member': [409, 'The daemon shares the store of a cluster already.'],
  'cluster.conflict': [
    409,
    'This host and the cluster it is to join have objects of the same name, which are listed; nothing was taken along.',
  ],
  'store.conflict': [409, 'A record changed between reading and writing; the operation may be tried again.'],
  'store.unavailable': [503, 'The store cannot be reached or refuses writes; what runs goes on.'],
  'store.full': [507, 'The disk that holds the store is full; what runs goes on.'],
  'store.damaged': [500, 'The store file is damaged.'],
  'store.newer': [500, 'The store was written by a newer version of Sluice.'],
  'store.locked': [500, 'Another daemon holds the state directory.'],
  'store.foreign': [409, 'The Redis belongs to another cluster; see clusterId.'],
  'store.fenced': [409, 'The session that guards this write has ended.'],
  'wait.timeout': [504, 'The change is stored but was not programmed within the time limit; the objects are named.'],
  'kernel.missing': [500, 'The kernel lacks a feature that this needs; it is named.'],
  'kernel.denied': [500, 'The kernel refused for lack of a capability.'],
  'kernel.failed': [500, 'A kernel operation failed; its own message is included.'],
  'kernel.exists': [409, 'The kernel object exists already.'],
  'kernel.notfound': [404, 'The kernel object does not exist.'],
  'config.invalid': [400, 'A setting is unknown or has a wrong value.'],
  'daemon.running': [409, 'Another daemon listens on the socket.'],
  'daemon.stopping': [503, 'The daemon is going down; what was stored before is kept.'],
  'daemon.unreachable': [503, 'The daemon does not answer on its socket.'],
  internal: [500, 'A defect in Sluice; the log has the details.'],
} as const satisfies Record<string, readonly [status: number, meaning: string]>;

export type ErrorCode = keyof typeof ERROR_CODES;

export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'SluiceError';
    this.code = code;
    this.details = details;
  }

  /** HTTP status of the code. */
  get status(): number {
    return ERROR_CODES[this.code][0];
  }

  toJSON(): { code: ErrorCode; message: string; details: Readonly<Record<string, unknown>> } {
    return { code: this.code, message: this.message, details: this.details };
  }
}

/** True for a `SluiceError`, with one of `codes` when any are given. */
export function isSluiceError(error: unknown, ...codes: ErrorCode[]): error is SluiceError {
  return error instanceof SluiceError && (codes.length === 0 || codes.includes(error.code));
}

/** Any thrown value as a `SluiceError`; what is not one becomes `internal` with the original as its cause. */
export function toSluiceError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  return new SluiceError('internal', error instanceof Error ? error.message : String(error), {}, error);
}
