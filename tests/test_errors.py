import inspect
import re

from prism import errors


def drawn_tree():
    """Return the tree of the docstring as (name, drawn parent) pairs."""
    tree, path = [], []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            tree.append((match[2], path[depth - 1] if depth else "Exception"))
    return tree


def test_the_docstring_draws_the_tree_as_it_is():
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
    assert sorted(drawn_tree()) == sorted(
        (cls.__name__, cls.__bases__[0].__name__) for cls in classes
    )


def test_callers_may_catch_the_builtin_errors():
    assert issubclass(errors.RequestError, ValueError)
    assert issubclass(errors.PeerLost, RuntimeError)
