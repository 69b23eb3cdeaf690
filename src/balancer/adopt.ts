/** Loads the objects over the maps that an earlier life pinned, or begins a new generation of maps when those do not fit. */
import { join } from 'node:path';
import { fault } from '../fault.ts';
import { closeFd, mapInfo, mapLookup, mapUpdate } from '../kernel/bpf/bpf.ts';
import { BpfObject, type MapDefinition } from '../kernel/bpf/object.ts';
import { FLOW_MAPS, LAYOUT, LAYOUT_VALUE, NUMBER, OBJECTS } from './maps/layout.ts';
import type { Pins } from './pins.ts';

export interface Loaded {
  readonly programs: ReadonlyMap<string, number>;
  readonly maps: ReadonlyMap<string, number>;
  /** Whether maps had to be made: false on an adoption. */
  readonly made: boolean;
  close(): void;
}

const LAYOUT_KEY = NUMBER.encode({ number: 0 });

/** What must agree for a map to serve programs that were compiled for `definition`. */
function fits(fd: number, definition: MapDefinition): boolean {
  const found = mapInfo(fd);
  return (
    found.type === definition.type &&
    found.keySize === definition.keySize &&
    found.valueSize === definition.valueSize &&
    found.maxEntries === definition.maxEntries &&
    found.flags === definition.flags
  );
}

/**
 * Whether the configuration maps of a generation serve us. A missing one does not matter before something is attached: an
 * earlier life was cut short. Afterwards it does, for attached programs use a map that nobody can reach any more.
 */
function serves(pins: Pins, generation: number, definitions: ReadonlyMap<string, MapDefinition>): boolean {
  const attached = pins.names('links', generation).length + pins.names('progs', generation).length > 0;
  for (const definition of definitions.values()) {
    if (FLOW_MAPS.has(definition.name)) continue;
    const fd = pins.open('maps', definition.name, generation);
    if (fd === null) {
      if (attached) return false;
      continue;
    }
    try {
      if (!fits(fd, definition)) return false;
      if (definition.name === 'layout') {
        const value = mapLookup(fd, LAYOUT_KEY, LAYOUT_VALUE.size);
        if (!value || LAYOUT_VALUE.decode(value).version !== LAYOUT) return false;
      }
    } finally {
      closeFd(fd);
    }
  }
  return true;
}

/** Sockets and connections keep their state: the newest generation that has the map with this layout lends it. */
function openFlowMap(pins: Pins, definition: MapDefinition): { fd: number; own: boolean } | null {
  for (const generation of [pins.generation, ...pins.older()]) {
    const fd = pins.open('maps', definition.name, generation);
    if (fd === null) continue;
    if (fits(fd, definition)) return { fd, own: generation === pins.generation };
    closeFd(fd);
  }
  return null;
}

/** Chooses the generation (`pins.use`), loads every object and pins every map. */
export function adopt(pins: Pins, objectDir: string): Loaded {
  const objects: BpfObject[] = [];
  const held: number[] = [];
  const close = (): void => {
    for (const object of objects.splice(0)) object.close();
    for (const fd of held.splice(0)) closeFd(fd);
  };
  try {
    for (const name of OBJECTS) objects.push(new BpfObject(join(objectDir, name)));
    const [first] = objects;
    const { definitions } = first!;
    const newest = pins.generations()[0] ?? 0;
    pins.use(newest > 0 && serves(pins, newest, definitions) ? newest : newest + 1);

    const maps = new Map<string, number>();
    const unpinned = new Set<string>();
    for (const definition of definitions.values()) {
      const found = FLOW_MAPS.has(definition.name)
        ? openFlowMap(pins, definition)
        : { fd: pins.open('maps', definition.name), own: true };
      if (!found?.own) unpinned.add(definition.name);
      if (!found?.fd) continue;
      held.push(found.fd);
      maps.set(definition.name, found.fd);
    }
    const missing = [...definitions.keys()].filter((name) => !maps.has(name));
    for (const object of objects) {
      object.load(maps);
      for (const name of missing) if (!maps.has(name)) maps.set(name, object.mapFd(name));
    }
    mapUpdate(maps.get('layout')!, LAYOUT_KEY, LAYOUT_VALUE.encode({ version: LAYOUT }));
    fault('dataplane.loaded');
    for (const name of new Set([...missing, ...unpinned])) pins.put('maps', name, maps.get(name)!);
    fault('dataplane.pinned');
    return {
      programs: new Map(objects.flatMap((object) => [...object.programs()])),
      maps,
      made: missing.length > 0,
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
