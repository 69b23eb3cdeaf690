import type { Image, Images } from '../../contracts/image.ts';
import { SluiceError } from '../../errors.ts';

/** The image of that name, id, or beginning of an id. `image.notfound`. */
export async function imageCalled(images: Pick<Images, 'get'>, reference: string): Promise<Image> {
  const image = await images.get(reference);
  if (!image) throw new SluiceError('image.notfound', `image ${reference} is not here`, { image: reference });
  return image;
}
