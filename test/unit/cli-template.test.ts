import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/command/command.ts';
import { compile } from '../../src/cli/print/template.ts';

const web = {
  id: 'abc',
  name: 'web',
  labels: { tier: 'front', area: 'shop' },
  removing: false,
  spec: {
    driver: 'bridge',
    mtu: 1400,
    subnets: [{ cidr: '10.20.0.0/24' }, { cidr: 'fd00:20::/64' }],
    dns: [],
    gwPriority: 0,
  },
  status: null,
};

test.each([
  ['plain', 'plain'],
  ['{{.Name}}', 'web'],
  ['{{.name}} {{.ID}} {{.Spec.Driver}}', 'web abc bridge'],
  ['{{ .Spec.GwPriority }}', '0'],
  ['{{.Nothing}} {{.Status.State}}', '<no value> <no value>'],
  ['{{json .Spec.Subnets}}', '[{"cidr":"10.20.0.0/24"},{"cidr":"fd00:20::/64"}]'],
  ['{{json .}}', JSON.stringify(web)],
  ['{{.Name | upper}} {{upper .Name}} {{.Name | printf "%-5s|"}}', 'WEB WEB web  |'],
  ['{{len .Spec.Subnets}} {{len .Name}} {{.Spec.Subnets | len}}', '2 3 2'],
  ['{{(index .Spec.Subnets 1).Cidr}} {{index .Labels "tier"}}', 'fd00:20::/64 front'],
  ['{{range .Spec.Subnets}}<{{.Cidr}}>{{end}}', '<10.20.0.0/24><fd00:20::/64>'],
  ['{{range $i, $s := .Spec.Subnets}}{{if $i}}, {{end}}{{$i}}={{$s.Cidr}}{{end}}', '0=10.20.0.0/24, 1=fd00:20::/64'],
  ['{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}', 'area:shop tier:front '],
  ['{{range .Spec.Dns}}x{{else}}none{{end}}', 'none'],
  ['{{range .Spec.Subnets}}{{$.Name}} {{end}}', 'web web '],
  ['{{if .Status}}yes{{else}}no{{end}}', 'no'],
  ['{{if .Removing}}a{{else if eq .Name "web"}}b{{else}}c{{end}}', 'b'],
  ['{{with .Spec}}{{.Driver}}{{end}}{{with .Status}}x{{else}}-{{end}}', 'bridge-'],
  ['{{$n := .Name}}{{$n}}{{$n = "x"}}{{$n}}', 'webx'],
  ['{{$n := 1}}{{range .Spec.Subnets}}{{$n = 2}}{{end}}{{$n}}', '2'],
  ['a {{- .Name -}} b', 'awebb'],
  ['{{/* said */}}x', 'x'],
  ['{{join (split "a.b" ".") "/"}} {{title "two words"}} {{truncate .Name 2}} {{lower "X"}}', 'a/b Two Words we x'],
  ['{{"quoted \\"text\\"\\t"}}{{`raw\\t`}}', 'quoted "text"\traw\\t'],
  ['{{if and .Name (not .Removing)}}{{or .Status "-"}}{{end}}', '-'],
  ['{{and .Status true}} {{and true .Name}}', '<no value> web'],
  ['{{lt 1 2}}{{ge 2 2}}{{ne "a" "b"}}{{gt 10 9}}{{le "a" "b"}}', 'truetruetruetruetrue'],
  ['{{printf "%s=%d %q %5.1f %%" .Name 3 "x" 2.25}}', 'web=3 "x"   2.3 %'],
  ['{{println .Name}}', 'web\n'],
  ['{{.Labels}} {{.Spec.Subnets}}', 'map[area:shop tier:front] [map[cidr:10.20.0.0/24] map[cidr:fd00:20::/64]]'],
  ['{{true}} {{nil}} {{-3}}', 'true <no value> -3'],
])('%s', (template, expected) => {
  expect(compile(template)(web)).toBe(expected);
});

test('computed columns stand beside the fields of the data, at the root alone', () => {
  const extras = { Subnets: () => '10.20.0.0/24, fd00:20::/64', Name: () => 'shown' };
  expect(
    compile('{{.Name}} {{.Subnets}} {{len .Spec.Subnets}}{{range .Spec.Subnets}} {{$.Name}}{{.Name}}{{end}}')(
      web,
      extras,
    ),
  ).toBe('shown 10.20.0.0/24, fd00:20::/64 2 shown<no value> shown<no value>');
});

describe('what is no template', () => {
  test.each([
    ['{{.Name', 'not closed'],
    ['{{if .Name}}x', 'without {{end}}'],
    ['{{range .Name}}{{else}}x', 'without {{end}}'],
    ['x{{end}}', 'without a beginning'],
    ['{{else}}', 'without a beginning'],
    ['{{shout .Name}}', 'no function "shout"'],
    ['{{.Name "x"}}', 'only a function takes arguments'],
    ['{{.Name | .Id}}', 'behind a | is a function'],
    ['{{.Name | }}', 'a value was expected'],
    ['{{(.Name}}', 'not closed'],
    ['{{$x}}', 'no variable $x'],
    ['{{range .Name}}{{end}}', 'range cannot go over'],
    ['{{index .Spec.Subnets 7}}', 'no element 7'],
    ['{{join .Name ","}}', 'not a list'],
    ['{{upper}}', 'needs an argument'],
    ['{{printf "%z" 1}}', 'printf knows no %z'],
    ['{{.Name # }}', 'cannot be read'],
  ])('%s', (template, complaint) => {
    expect(() => compile(template)(web)).toThrow(complaint);
    expect(() => compile(template)(web)).toThrow(UsageError);
  });

  test('any text is a template or a UsageError, in no time', () => {
    const piece = fc.constantFrom(
      '{{',
      '}}',
      '.',
      '$x',
      ':=',
      '|',
      '(',
      ')',
      'range',
      'if',
      'end',
      'else',
      '"a"',
      '-',
      ' ',
      'len',
      'é',
      '/*',
      '*/',
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string({ maxLength: 5 })), { maxLength: 30 }), (pieces) => {
        try {
          expect(typeof compile(pieces.join(''))(web)).toBe('string');
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
