// What the documents have to run: blocks of code, and commands and flags in the prose.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../..')

/** Folders whose pages are read: those at the root, the manual, and those beside the code that they describe. */
const FOLDERS = ['', 'docs', 'bench', 'tests/silence', 'tests/planted']

/** The pages, by name: `{ name, text, prose, blocks }`. */
export function documents() {
  const names = FOLDERS.flatMap(folder => readdirSync(join(ROOT, folder))
    .filter(name => name.endsWith('.md'))
    .map(name => join(folder, name)))
  return names.sort().map(name => ({ name, ...parsed(readFileSync(join(ROOT, name), 'utf8')) }))
}

const pages = documents()
export const page = name => pages.find(page => page.name === name)

/** Splits a page into its prose and its fenced blocks, each with its line, its language and its text. */
export function parsed(text) {
  const blocks = [], prose = []
  let block
  text.split('\n').forEach((line, index) => {
    const fence = line.match(/^( *)```(.*)$/)
    if (block && fence) {
      blocks.push({ ...block, text: block.lines.join('\n') })
      block = undefined
    } else if (block) {
      block.lines.push(line.startsWith(block.indent) ? line.slice(block.indent.length) : line.trimStart())
    } else if (fence) {
      block = { line: index + 1, language: fence[2].split(',')[0].trim(), indent: fence[1], lines: [] }
    } else {
      prose.push(line)
    }
  })
  if (block) throw new Error(`the block of line ${block.line} has no end`)
  return { text, blocks, prose: prose.join('\n') }
}

/** The commands of a block for a shell: its lines without comments. A line that ends in a backslash goes on. */
export const commands = text => text
  .replaceAll(/\\\n\s*/g, '')
  .split('\n')
  .map(line => line.replace(/(^|\s+)#\s.*$/, '').trim())
  .filter(line => line)

/** What stands in the prose as code. */
export const spans = prose => [...prose.matchAll(/(?<!`)`([^`\n]+)`(?!`)/g)].map(([, span]) => span)

/** Whether a span is a command with arguments; the name of a program alone is none. */
export const isCommand = span =>
  /^([A-Z_]+=\S+ )*(slotcast|make|cargo|curl|websocat|head|bash|python3?|node|systemctl|docker|npm|pip|openssl) /.test(span)

/** The flags in the prose, each with its value, if there is one. */
export const flags = prose => spans(prose).filter(span => /^--[a-z]/.test(span))

export const exists = path => existsSync(join(ROOT, path))

const KINDS = {
  position: 'POSITION', id: 'ID', from: 'ID', to: 'ID', was: 'ID', reason: 'REASON', time: 0, count: 0, receivers: 0,
}

/** The same with everything replaced that differs from run to run. */
export function shape(value, key) {
  if (value === null) return null
  if (Array.isArray(value)) return value.map(it => shape(it))
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, it]) => [key, shape(it, key)]))
  if (key === 'members') return 0
  return key in KINDS ? KINDS[key] : value
}
