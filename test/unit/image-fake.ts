/** Images in memory: those that were put there, with roots that are only names. */
import type { Image, ImageConfig, Images } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';

export interface FakeImages extends Images {
  put(name: string, config?: Partial<ImageConfig>): Image;
  /** Mounted roots by container. */
  readonly mounted: Map<string, string>;
  readonly layers: Set<string>;
}

export function createFakeImages(): FakeImages {
  const images = new Map<string, Image>();
  const refuse = async (): Promise<never> => {
    throw new SluiceError('image.notfound', 'these images are in memory');
  };
  const fake: FakeImages = {
    mounted: new Map(),
    layers: new Set(),
    put(name, config = {}) {
      const image: Image = {
        id: `sha256:${Buffer.from(name).toString('hex').padEnd(64, '0').slice(0, 64)}`,
        names: [name],
        digests: [],
        os: 'linux',
        architecture: 'amd64',
        created: '2026-01-01T00:00:00.000Z',
        size: 0,
        layers: [],
        config: {
          entrypoint: [],
          command: ['sh'],
          env: [],
          user: '',
          workdir: '',
          volumes: [],
          ports: [],
          labels: {},
          ...config,
        },
      };
      images.set(name, image);
      images.set(image.id, image);
      return image;
    },
    get: async (reference) => images.get(reference) ?? null,
    list: async () => [...new Set(images.values())],
    pull: refuse,
    push: refuse,
    load: refuse,
    save: () => {
      throw new SluiceError('image.notfound', 'these images are in memory');
    },
    import: refuse,
    tag: refuse,
    remove: refuse,
    prune: refuse,
    history: refuse,
    login: refuse,
    logout: refuse,
    async mount(imageId, container) {
      if (!images.has(imageId)) throw new SluiceError('image.notfound', `image ${imageId} is gone`);
      const root = `/nowhere/${container}`;
      fake.mounted.set(container, root);
      fake.layers.add(container);
      return root;
    },
    unmount: async (container) => void fake.mounted.delete(container),
    removeRoot: async (container) => void fake.layers.delete(container),
    roots: async () => [...fake.layers],
  };
  return fake;
}
