"""Small wrong versions of a module, one change each.

for mutant in mutants(source, "claims.py"):
    mutant.code        # the whole module, compiled with the change
    str(mutant)        # claims.py:120: `now >= expires` -> `now > expires`

Left out, because no test should care: docstrings, annotations, assertions, what is logged, the texts of Python's own exceptions
(nobody is told them), `__repr__`, `__slots__`. And `sleep(-1)` in place of `sleep(0)`, which is the same.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
}
_LOGS = ("log", "logging", "warnings")
_TEXTS = ("ValueError", "TypeError")
_NOTHING = ast.Constant(None)


@dataclass(frozen=True)
class Mutant:
    """One change: where (lines, both included; column), what it was, what it became, and the module that it makes."""

    file: str
    column: int
    first: int
    last: int
    was: str
    became: str
    code: CodeType

    @property
    def name(self) -> str:
        """No other mutant of the module has it."""
        return f"{self.file}:{self.first}:{self.column}: `{self.was}` -> `{self.became}`"

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: `{_short(self.was)}` -> `{_short(self.became)}`"


def mutants(source: str, file: str) -> Iterator[Mutant]:
    """Every mutant of a module; `file` is its path. Those that compile to the same program as another one are left out."""
    tree = ast.parse(source, file)
    seen = {compile(tree, file, "exec")}
    for statement, parent, field, index in _places(tree):
        held = getattr(parent, field)
        node = held if index is None else held[index]
        first, last = _lines(statement, node)
        for changed in _changes(node, parent):
            if changed is not _NOTHING:
                ast.copy_location(changed, node)
            ast.fix_missing_locations(changed)
            was, became = _said(parent, node, node), _said(parent, node, changed)
            _put(parent, field, index, changed)
            try:
                code = compile(tree, file, "exec")
            finally:
                _put(parent, field, index, node)
            if code not in seen:
                seen.add(code)
                yield Mutant(file.rpartition("/")[2], getattr(node, "col_offset", 0), first, last, was, became, code)


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str, int | None]]:
    """(statement, node, field, index): each child of a node that may be changed, and the statement that it is in."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        statement, node = waiting.pop()
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_params", "decorator_list"):
                continue
            children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            for index, child in children:
                if isinstance(child, ast.AST) and not _skipped(child, node):
                    inner = child if isinstance(child, ast.stmt) else statement
                    yield inner, node, field, index
                    waiting.append((inner, child))


def _skipped(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.expr_context():
            return True
        case ast.Raise(ast.Call(ast.Name("AssertionError"))):
            return True
        case ast.Expr(ast.Constant()):  # a docstring, or `...`
            return True
        case ast.FunctionDef(name="__repr__") | ast.If(ast.Name("TYPE_CHECKING")):
            return True
        case ast.Assign([ast.Name("__slots__" | "log")]):
            return True
        case ast.Assign(
            value=ast.Subscript(ast.Name("Callable" | "Literal" | "Mapping" | "Sequence" | "list"))
            | ast.Call(ast.Name("TypeVar"))
        ):  # a type
            return True
        case ast.Call(ast.Attribute(ast.Name(name))) if name in _LOGS:
            return True
        case ast.Expr(ast.Call() as call):
            return _skipped(call, node)
        case ast.Constant() if isinstance(parent, ast.Call) and getattr(parent.func, "id", None) in _TEXTS:
            return True
        case ast.Constant() if isinstance(parent, ast.FormattedValue | ast.JoinedStr):
            return True  # a f-string is changed as a whole
    return False


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in _COMPARED[type(op)]:
                    yield ast.Compare(node.left, [*ops[:at], other(), *ops[at + 1 :]], node.comparators)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, op, right) if type(op) in _COMPUTED:
            yield ast.BinOp(left, _COMPUTED[type(op)](), right)
        case ast.AugAssign(target, op, value):
            yield ast.Pass()
            if type(op) in _COMPUTED:
                yield ast.AugAssign(target, _COMPUTED[type(op)](), value)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            if not (value == 0 and (isinstance(parent, ast.Subscript) or _is_sleep(parent))):  # [-1] of one is [0]
                yield ast.Constant(value - 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() | bytes() as value) if _is_stripped(parent):
            yield ast.Constant(type(value)())
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"XX{value}XX" if value else "XX")
        case ast.Constant(value=bytes(value)):
            yield ast.Constant(b"XX%bXX" % value if value else b"XX")
        case ast.JoinedStr(values):
            yield ast.JoinedStr([ast.Constant("XX"), *values])
        case ast.Return(None) | ast.Raise() | ast.Expr(ast.Call() | ast.Await()) | ast.Delete():
            yield ast.Pass()
        case ast.Return(value) if not _is_nothing(value):
            yield ast.Return(_NOTHING)
        case ast.Assign(targets, value) if not _is_nothing(value):
            yield ast.Assign(targets, _NOTHING)
        case ast.AnnAssign(value=ast.expr() as value) if not _is_nothing(value):
            yield ast.AnnAssign(node.target, node.annotation, _NOTHING, node.simple)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
    if isinstance(node, ast.expr) and _is_condition(node, parent) and not isinstance(node, ast.Compare | ast.Constant):
        yield ast.UnaryOp(ast.Not(), node)


def _is_condition(node: ast.AST, parent: ast.AST) -> bool:
    match parent:
        case ast.If() | ast.While() | ast.IfExp():
            return node is parent.test
        case ast.comprehension():
            return node in parent.ifs
        case ast.match_case():
            return node is parent.guard
    return False


def _is_nothing(value: ast.AST | None) -> bool:
    """None would be the same, or as good as: to `if`, False is."""
    return isinstance(value, ast.Constant) and (value.value is None or value.value is False)


def _is_stripped(parent: ast.AST) -> bool:
    """Is this text a set of characters to strip? With two more of them it would be the same for most texts."""
    return isinstance(parent, ast.Call) and getattr(parent.func, "attr", None) in ("strip", "lstrip", "rstrip")


def _is_sleep(parent: ast.AST) -> bool:
    return isinstance(parent, ast.Call) and getattr(parent.func, "attr", None) == "sleep"


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _lines(statement: ast.AST, node: ast.AST) -> tuple[int, int]:
    """Lines of which one runs whenever the change matters: the statement's, but for a compound one only its head."""
    around = statement if isinstance(statement, ast.stmt) and not hasattr(statement, "body") else node
    around = around if hasattr(around, "lineno") else statement
    first = getattr(around, "lineno", 1)
    return first, getattr(around, "end_lineno", None) or first


def _said(parent: ast.AST, instead_of: ast.AST, node: ast.AST) -> str:
    """A node in its place, with a little of what is around it."""
    if isinstance(parent, ast.expr | ast.keyword | ast.Return | ast.Assign | ast.Expr | ast.Raise | ast.AugAssign):
        around = copy.copy(parent)
        for field, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(around, field, [node if one is instead_of else one for one in value])
            elif value is instead_of:
                setattr(around, field, node)
        return _written(around)
    return _written(node)


def _written(node: ast.AST) -> str:
    try:
        return ast.unparse(node)
    except (AttributeError, TypeError, ValueError):  # a part that only stands within another
        return type(node).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 110 else f"{line[:107]}..."
