"""The site's pages: the repository's own files where they are, and an API reference written from the docments."""
import inspect
import json
import logging
import os
import re
import textwrap
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path

import onnxruntime_web
from bs4 import BeautifulSoup
from fastcore.docments import docments
from latex2mathml.converter import convert
from markdown.extensions.toc import nest_toc_tokens
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.structure.toc import get_toc
from mnist_fastai.reader import packaged, read_onnx

root = Path(__file__).parents[2]
built = root/'build'/'notebooks'
modules, stories = sorted(root.glob('nbs/[0-9]*.ipynb')), sorted(root.glob('nbs/stories/[!.]*.ipynb'))
results = sorted(o for o in root.glob('results/*') if o.suffix in {'.md', '.png', '.html', '.csv', '.json'})
docs = [root/'docs'/f'{o}.md' for o in (
    'install', 'commands', 'data', 'models', 'speed', 'reading', 'own_digits', 'app', 'service')]
files = {root/'README.md', root/'CONTRIBUTING.md', root/'CHANGELOG.md', *docs, *results, *modules, *stories}
link = re.compile(r'(\]\(|(?:href|src)=")(?![a-z]+:|#)([^)"#\s]+)')  # of Markdown or HTML: what comes before, the path
elsewhere = re.compile(r'!\[([^]]*)\]\(https?:[^)]*\)')  # a picture from another host: its description
try_left_out = ''  # why there is no page "Try it"
formula = re.compile(r'`[^`]*`|(\$\$?)([^$]+)\1')  # or code, which may have a $ of its own


def rel(file): return file.relative_to(root).as_posix()


@cache
def title(nb):
    "Its heading, or its name while it has none"
    texts = (''.join(o['source']) for o in json.loads(nb.read_text())['cells'] if o['cell_type'] == 'markdown')
    return next((m[1] for o in texts if (m := re.match('# (.+)', o))), nb.stem)


def module_of(nb): return import_module(f'mnist_fastai.{title(nb)}')


def modules_with_names():
    "Modules that export something; `all` has what the others export"
    return [o for o in modules if title(o) != 'all' and module_of(o).__all__]


def on_config(config):
    "The navigation: a new notebook appears by itself"
    config.nav = [
        dict(Home='README.md'),
        {'Try it': 'try/index.md'},
        dict(Guide=[rel(o) for o in docs]),
        dict(Stories=[{title(o): rel(o)} for o in stories]),
        dict(Modules=[{title(o): rel(o)} for o in modules]),
        dict(API=[{title(o): f'api/{title(o)}.md'} for o in modules_with_names()]),
        dict(Results=[rel(o) for o in results if o.suffix == '.md']),
        dict(Contributing='CONTRIBUTING.md'), dict(Changelog='CHANGELOG.md')]


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(found, config):
    "What the site is made of"
    for o in sorted(files):
        if o.suffix == '.ipynb': write_notebook(o, config.edit_uri)
        found.append(File(rel(o), built if o.suffix == '.ipynb' else root, config.site_dir, config.use_directory_urls))
    for o in modules_with_names():
        page = File.generated(config, f'api/{title(o)}.md', content=api_page(o, config.edit_uri))
        page.edit_uri = rel(o)
        found.append(page)
    add_networks(found, config)


def add_networks(found, config):
    "What the page `Try it` reads digits with: ONNX Runtime, three networks, and the numbers that belong to two of them"
    global try_left_out
    found.get_file_from_path('try/index.md').edit_uri = 'tools/site/try/index.md'
    try: ort = onnxruntime_web.runtime(root/'build')
    except OSError as e:
        if 'GITHUB_ACTIONS' in os.environ: raise
        try_left_out = str(e)
        logging.getLogger('mkdocs.hooks').info(f'The page "Try it" is left out: {e}')
        for o in [*found]:
            if o.src_uri.startswith('try/') and o.src_uri != 'try/index.md': found.remove(o)
        return
    networks = [packaged['tiny'], packaged['best'], root/'mnist_fastai'/'pictures'/'finder.onnx']
    for o in [*networks, *(ort/name for name in onnxruntime_web.names)]:
        found.append(File.generated(config, f'try/{o.name}', abs_src_path=str(o)))
    numbers = {o: read_onnx(packaged[o])[2] for o in ('tiny', 'best')}
    found.append(File.generated(config, 'try/numbers.json', content=json.dumps(numbers)))


def to_github(text, page, github):
    "The text of a page; its links to files of the repository that are not on the site go to GitHub"
    def go(m):
        file = Path(os.path.normpath(page.parent/m[2]))
        return f'{m[1]}{github}{rel(file)}' if file.exists() and file not in files else m[0]
    return link.sub(go, text)


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri == 'try/index.md' and try_left_out:
        return f'# Try it\n\nThis copy of the site was built without it: {escape(try_left_out)}.'
    return to_github(markdown, root/page.file.src_uri, config.edit_uri)


def write_notebook(nb, github):
    "A notebook for the site: without nbdev's directives, with links to pages, and formulas that need no JavaScript"
    def math(m): return convert(m[2], display='block' if m[1] == '$$' else 'inline') if m[1] else m[0]
    def go(m): return m[1] + re.sub(r'\.(ipynb|md)$', '.html', re.sub(r'README\.md$', 'index.html', m[2]))
    book = json.loads(nb.read_text())
    for cell in book['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            text = formula.sub(math, link.sub(go, elsewhere.sub(r'\1', to_github(text, nb, github))))
        elif text.startswith('#| hide\n'): text = ''
        else: text = re.sub(r'^#\| .*\n?', '', text, flags=re.M)
        cell |= dict(source=text, metadata={})  # tags would be shown
    book['cells'] = [o for o in book['cells'] if o['source'].strip()]
    to = built/rel(nb)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(book))


def on_page_content(html, page, config, files):
    "A notebook in the site's own style, without the half megabyte of JupyterLab's"
    if not page.file.src_uri.endswith('.ipynb'): return html
    book = BeautifulSoup(html, 'html.parser').find(class_='jupyter-wrapper')
    for o in book.select('script, style, .zeroclipboard-container, .clipboard-copy-txt, .jp-Collapser'): o.decompose()
    for o in book.select('.highlight-ipynb'): o['class'] = 'highlight'
    for o in book.select('pre:not(:has(> code))'):
        o.wrap(book.new_tag('pre'))
        o.name = 'code'
    for o in book.select('table'): o.attrs = {}
    for o in book.select('.anchor-link'): o['class'] = 'headerlink'
    for o in book.select('img[alt^="No description"]'): o['alt'] = 'Output of the code above'
    heads = book.select('.jp-MarkdownCell :is(h1, h2, h3)')
    page.toc = get_toc(nest_toc_tokens([dict(level=int(o.name[1]), id=o['id'], name=o.text[:-1]) for o in heads]))
    return str(book)


def on_post_page(output, page, config):
    "mkdocs-jupyter 0.27 would load MathJax from another host"
    return re.sub(r'<script data-mkdocs-jupyter-mathjax.*?</script>', '', output, flags=re.S)


def api_page(nb, github):
    "What a module exports, in the order of its notebook"
    module = module_of(nb)
    lead = f'{module.__doc__} Why and how, with examples: [the notebook](../{rel(nb)}).'
    return '\n\n'.join([f'# {title(nb)}', lead, *(describe(getattr(module, o), o, github) for o in module.__all__)])


def line_of(f):
    "Where it is defined; a namedtuple is assigned"
    lines = Path(inspect.getsourcefile(f)).read_text().split('\n')
    assigned = [i for i, o in enumerate(lines, 1) if o.startswith(f'{f.__name__} = ')]
    return assigned[0] if assigned else inspect.getsourcelines(f)[1]


def describe(o, name, github, level=2):
    "Heading, docstring, signature and parameters of a function, or of a class and its methods"
    head = f'{"#"*level} {name}'
    if not callable(o): return f'{head}\n\n' + ', '.join(f'`{k}`' for k in (o if hasattr(o, '__iter__') else [o]))
    f = inspect.unwrap(o)
    source = []
    if f.__module__.startswith('mnist_fastai'):  # not what a module only hands on
        source = [f'[source]({github}{rel(Path(inspect.getsourcefile(f)))}#L{line_of(f)}){{ .source }}']
    parts = [head, *source, inspect.getdoc(o) or '']
    if not inspect.isclass(o) or not issubclass(o, Exception): parts += [signature(o, name), table(o)]
    if inspect.isclass(o):
        own = {k: v for k, v in vars(o).items() if inspect.isfunction(v) and k[0] != '_' and v.__doc__}
        parts += [describe(v, f'{name}.{k}', github, level + 1) for k, v in own.items()]
    return '\n\n'.join(parts)


def short(text): return re.sub(r"<(?:class '|(?:built-in )?function )(?:\w+\.)*(\w+)[^>]*>", r'\1', text)


def signature(o, name):
    "Names and defaults; the types are in the table"
    sig = inspect.signature(o)
    pars = [p.replace(annotation=p.empty) for p in sig.parameters.values() if p.name != 'self']
    text = short(f'{name}{sig.replace(parameters=pars, return_annotation=sig.empty)}')
    return '```python\n' + textwrap.fill(text, 80, subsequent_indent='    ', break_on_hyphens=False) + '\n```'


def table(o):
    "The docments of a function: name, type, what it is"
    rows = []
    for k, v in docments(o, full=True).items():
        anno = '' if v.anno in (inspect.Parameter.empty, type(None), None) else short(inspect.formatannotation(v.anno))
        if anno: anno = '`' + re.sub(r'[A-Za-z_][\w.]*[.](?=[A-Za-z_])', '', anno) + '`'
        text = re.sub(r'<(?=[^`]*(`[^`]*`[^`]*)*$)', '&lt;', v.docment or '')  # not in code
        if k != 'self' and (text or anno): rows.append(f'| `{k}` | {anno} | {text} |')
    return '\n'.join(['| name | type | what it is |', '| --- | --- | --- |', *rows]) if rows else ''
