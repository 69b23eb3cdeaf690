import type { Obj } from './object.ts';

export interface SandboxSpec {
  /** `own`: we make and remove the namespace. `attached`: somebody else's, at `netns`; we write no file for it. */
  readonly origin: 'own' | 'attached' | 'host';
  /** Path of the namespace of an attached sandbox; own ones live at `<runDir>/netns/<id>`. */
  readonly netns?: string;
  readonly hostname?: string;
  /** Extra sysctls written inside the namespace, below `net.` only. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** Nameservers, search domains and options that replace the host's for forwarding and resolv.conf. */
  readonly dns?: {
    readonly servers?: readonly string[];
    readonly search?: readonly string[];
    readonly options?: readonly string[];
  };
}

export type Sandbox = Obj<'sandbox', SandboxSpec>;
