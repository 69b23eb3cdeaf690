/** A container runtime as the controllers see it. The implementation in runtime/ comes after the networks. */
export interface ContainerState {
  readonly id: string;
  readonly state: 'created' | 'running' | 'exited';
  readonly pid?: number;
  readonly exitCode?: number;
  /** ISO 8601. */
  readonly startedAt?: string;
  readonly exitedAt?: string;
}
export interface ContainerPlan {
  readonly id: string;
  /** OCI bundle directory. */
  readonly bundle: string;
  readonly netnsPath: string;
  readonly cgroupPath: string;
}
export interface Runtime {
  create(plan: ContainerPlan): Promise<ContainerState>;
  start(id: string): Promise<ContainerState>;
  kill(id: string, signal: string): Promise<void>;
  delete(id: string): Promise<void>;
  state(id: string): Promise<ContainerState | null>;
  list(): Promise<readonly ContainerState[]>;
}
