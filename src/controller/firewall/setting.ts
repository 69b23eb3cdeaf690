import type { Namespace } from '../../contracts/kernel.ts';
import { isSluiceError } from '../../errors.ts';

/** A sysctl of the namespace; null where the kernel has none of that name, be it for want of a module that nobody has loaded. */
export function settingOf(namespace: Pick<Namespace, 'getSysctl'>, name: string): string | null {
  try {
    return namespace.getSysctl(name);
  } catch (error) {
    if (isSluiceError(error, 'kernel.notfound')) return null;
    throw error;
  }
}
