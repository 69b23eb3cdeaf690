import { expect, test } from 'vitest';
import { BrokenPromise, createStage } from '../demo/stage.ts';

test('promises are counted, and the first that is broken ends the demo', async () => {
  const said: string[] = [];
  const stage = createStage((text) => said.push(text));
  await stage.step('One', async () => {
    stage.typed('sluice network ls', 'a\n\nb\n', 'h1 ');
    stage.promise(true, 'it is there');
    stage.promise(true, 'and works');
  });
  const two = stage.step('Two', async () => {
    stage.promise(true, 'it goes on');
    stage.promise(false, 'for ever');
    stage.promise(true, 'never said');
  });
  await expect(two).rejects.toThrow(new BrokenPromise('for ever'));
  expect(stage.kept()).toBe(3);
  expect(said.map((line) => line.trim())).toEqual([
    '1  One',
    'h1 $ sluice network ls',
    'a',
    'b',
    '✓ it is there',
    '✓ and works',
    expect.stringMatching(/^\d+ ms$/),
    '2  Two',
    '✓ it goes on',
    '✗ for ever',
    expect.stringMatching(/^\d+ ms$/),
  ]);
  expect(
    stage
      .table()
      .replace(/ \d+ ms/g, '')
      .split(/\s{2,}/),
  ).toEqual(expect.arrayContaining([expect.stringContaining('2 kept'), 'BROKEN']));
});
