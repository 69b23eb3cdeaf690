/** Times longer than on a plain machine that everything may take: SLUICE_LAB_SLOWNESS, 1 where it is not set. */
export const slowness = (): number => Math.max(1, Number(process.env.SLUICE_LAB_SLOWNESS ?? 1));
