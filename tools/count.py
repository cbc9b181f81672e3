"""Count how the package is built, as a table: `python tools/count.py [ROOT...]`, of this checkout or of others.

tests/test_notebooks.py uses the same functions, and says how much of each there may be.
"""
import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

here = Path(__file__).resolve().parents[1]
package = 'mnist_fastai'


def module_files(root=here):
    "Name of each module, without the package's, and its file"
    files = sorted(o for o in (root/package).rglob('*.py') if not o.name.startswith('_'))
    return {'.'.join(o.relative_to(root/package).with_suffix('').parts): o for o in files}


def trees(root=here): return {k: ast.parse(v.read_text(encoding='utf-8')) for k, v in module_files(root).items()}


def imports(tree, name, modules):
    "The modules of the package that a module imports, also inside functions"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = f'{package}.{name}'.split('.')[:-node.level] if node.level else []
            source = '.'.join([*parts, *([node.module] if node.module else [])])
            named = [source, *(f'{source}.{o.name}' for o in node.names)]
        elif isinstance(node, ast.Import): named = [o.name for o in node.names]
        else: continue
        yield from (o.removeprefix(f'{package}.') for o in named if o.removeprefix(f'{package}.') in modules)


def import_graph(root=here):
    "Module -> set of the modules that it imports"
    found = trees(root)
    return {name: set(imports(tree, name, found)) - {name} for name, tree in found.items()}


def cycle(graph):
    "A list of modules, each of which imports the next one, the last the first; empty if there is none"
    done = set()
    def visit(name, path):
        if name in path: return path[path.index(name):]
        if name in done: return []
        for o in sorted(graph[name]):
            if found := visit(o, [*path, name]): return found
        done.add(name)
        return []
    return next((found for name in graph if (found := visit(name, []))), [])


def is_patch(node): return any('patch' in ast.unparse(o) for o in getattr(node, 'decorator_list', []))


def assigned(node):
    "The names that a statement at the top of a module defines"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return [] if is_patch(node) else [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [o.id for target in targets for o in ast.walk(target)
            if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)]


def names_defined_twice(root=here):
    "Top-level name -> the modules that define it, of those that several do"
    where = defaultdict(list)
    for module, tree in trees(root).items():
        for name in {o for node in tree.body for o in assigned(node)} - {'__all__', '_all_'}: where[name].append(module)
    return {k: v for k, v in sorted(where.items()) if len(v) > 1}


def public(tree):
    "The names in `__all__`"
    lists = [o.value for o in tree.body if isinstance(o, ast.Assign) and assigned(o) == ['__all__']]
    return set(ast.literal_eval(lists[0])) if lists else set()


def top_functions(root=here):
    "(module, name) of each function at the top of a module, those that are patched onto a class included"
    return [(module, o.name) for module, tree in trees(root).items() for o in tree.body
            if isinstance(o, ast.FunctionDef)]


def single_caller_helpers(root=here):
    "(module, name) of each function that is not in `__all__` and that one definition of the package mentions"
    found, mentions = trees(root), Counter()
    for tree in found.values():
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)): continue
            used = {o.id if isinstance(o, ast.Name) else o.attr for o in ast.walk(node)
                    if isinstance(o, (ast.Name, ast.Attribute))}
            mentions.update(used - set(assigned(node)))
    return [(module, o.name) for module, tree in found.items() for o in tree.body if isinstance(o, ast.FunctionDef)
            and not is_patch(o) and o.name not in public(tree) and mentions[o.name] == 1]


def words_elsewhere(root=here):
    "Every word of the tests, the demos in notebooks and what makes results"
    texts = [o.read_text(encoding='utf-8') for o in [*root.glob('tests/*.py'), *root.glob('results/*.py')]]
    for file in root.glob('nbs/**/*.ipynb'):
        cells = [''.join(o['source']) for o in json.loads(file.read_text(encoding='utf-8'))['cells']
                 if o['cell_type'] == 'code']
        texts += [o for o in cells if not re.match(r'#\| *export', o)]
    return set(re.findall(r'\w+', '\n'.join(texts)))


def exports(notebook):
    "Of each exported cell that is more than imports, what follows it: `code` (a demo or a test), `markdown` or nothing"
    cells, found = json.loads(notebook.read_text(encoding='utf-8'))['cells'], []
    def is_export(cell): return cell['cell_type'] == 'code' and re.match(r'#\| *export', ''.join(cell['source']))
    def is_heading(cell): return re.fullmatch(r'#+ .*', ''.join(cell['source']).strip())
    for cell, following in zip(cells, [*cells[1:], None]):
        if not is_export(cell): continue
        body = ast.parse(''.join(cell['source'])).body
        if all(isinstance(o, (ast.Import, ast.ImportFrom)) or assigned(o) == ['_all_'] for o in body): continue
        is_bare = following is None or is_export(following) or is_heading(following)
        found.append('' if is_bare else following['cell_type'])
    return found


def longest_bare_row(found): return max((len([*o]) for is_shown, o in groupby(found, bool) if not is_shown), default=0)


def names_in_all(root=here):
    "How many names `from mnist_fastai.all import *` brings"
    code = f'd = {{}}; exec("from {package}.all import *", d); print(len(d) - 1)'
    return int(subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env={**os.environ, 'PYTHONPATH': str(root)},
                              cwd=root, check=True, capture_output=True, text=True).stdout)


def counts(root=here):
    "What is counted, and how much of it there is"
    lines = {k: len(v.read_text(encoding='utf-8').splitlines()) for k, v in module_files(root).items()}
    longest = max(lines, key=lines.get)
    shown = {o.name: exports(o) for o in sorted(root.glob('nbs/[0-9]*.ipynb'))}
    every, bare = sum(shown.values(), []), max(shown, key=lambda o: longest_bare_row(shown[o]))
    helpers, elsewhere = single_caller_helpers(root), words_elsewhere(root)
    return {
        'modules': len(lines),
        'lines of modules': f'{sum(lines.values()):,}',
        'the longest module, lines': f'{lines[longest]} (`{longest}`)',
        'modules over 350 lines': sum(o > 350 for o in lines.values()),
        'import cycles': ' → '.join(cycle(import_graph(root))) or 'none',
        'top-level functions': len(top_functions(root)),
        'private ones with a single caller': len(helpers),
        'of them, in no test or demo': sum(name not in elsewhere for _, name in helpers),
        'names defined in two modules': len(names_defined_twice(root)),
        'exported cells that are shown': f'{sum(map(bool, every))/len(every):.0%} of {len(every)}',
        'by a demo or a test': f"{every.count('code')/len(every):.0%}",
        'bare exports in a row, at most': longest_bare_row(shown[bare]),
        'names in `all`': f'{names_in_all(root):,}',
        'lines of README': len((root/'README.md').read_text(encoding='utf-8').splitlines()),
    }


if __name__ == '__main__':
    roots = [Path(o).resolve() for o in sys.argv[1:]] or [here]
    found = [counts(o) for o in roots]
    print('\n'.join([f"| | {' | '.join(o.name for o in roots)} |", f"| --- |{' ---: |'*len(roots)}",
                     *(f"| {what} | {' | '.join(str(o[what]) for o in found)} |" for what in found[0])]))
