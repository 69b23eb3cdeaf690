/** Names of signals as people and images write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`. */

export const SIGNAL_PATTERN = /^(SIG)?[A-Z0-9+-]{1,12}$|^\d{1,2}$/;

/** With its prefix; a number stays one. */
export const signalName = (given: string): string =>
  /^\d+$/.test(given) || given.startsWith('SIG') ? given : `SIG${given}`;
