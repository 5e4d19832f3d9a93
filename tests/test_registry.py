"""Names, owners and options, without any package."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from seqdens.errors import SeqdensError, UsageError
from seqdens.registry import Option, Provider, Registry, check_options, choices, options_of


class Pen:
    """A component with an option of each sort."""

    def __init__(
        self,
        ink: str,
        *,
        width: float = 1.0,
        strokes: Annotated[int, Meta(ge=1)] = 2,
        tip: Literal["round", "flat"] = "round",
        paper: Path | None = None,
        dashes: tuple[int, ...] = (),
        wet: bool = False,
    ) -> None:
        self.ink, self.width = ink, width


def provider(name: str, target: Any, owner: str = "here 1.0") -> Provider:
    return Provider("pens", name, target, owner)


PENS = Registry("pens", [provider("quill", Pen), provider("brush", Pen)])


def test_unknown_name_lists_what_exists_and_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no 'quil' among the pens; did you mean 'quill'\? known: brush, quill\."):
        PENS.provider("quil")


def test_a_beginning_is_near_enough() -> None:
    assert choices("gmm", ["gmm-bernoulli", "logistic"]).startswith("did you mean 'gmm-bernoulli'?")


def test_unknown_name_tells_which_packages_could_not_be_read() -> None:
    with pytest.raises(UsageError, match=r"known: none\. pens-extra 1\.0 cannot be read"):
        Registry("pens", failures=["pens-extra 1.0 cannot be read."]).provider("fountain")


def test_two_owners_are_an_error_that_names_both_only_for_that_name() -> None:
    pens = Registry("pens", [provider("quill", Pen, "a 1.0"), provider("quill", Pen, "b 2.0"), provider("nib", Pen)])
    with pytest.raises(UsageError, match=r"'quill' of pens is provided twice, by a 1\.0 .* and b 2\.0"):
        pens.provider("quill")
    assert pens.provider("nib").owner == "here 1.0"


def test_a_target_is_imported_on_use_and_may_be_dotted_or_a_module() -> None:
    assert provider("join", "os:path.join").load() is __import__("os").path.join
    assert provider("math", "math").load() is __import__("math")


@pytest.mark.parametrize("target", ["no_such_module:Pen", "math:no_such_name"])
def test_what_cannot_be_loaded_names_the_owner_and_the_reason(target: str) -> None:
    with pytest.raises(SeqdensError, match=rf"'nib' of pens cannot be loaded from {target} \(here 1\.0\): .*no_such"):
        provider("nib", target).load()


def test_options_are_the_keyword_only_arguments_in_order() -> None:
    assert list(options_of(Pen)) == ["width", "strokes", "tip", "paper", "dashes", "wet"]
    assert options_of(type("Plain", (), {})) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("width", "float"),
        ("strokes", "int >= 1"),
        ("tip", '"round" | "flat"'),
        ("paper", "Path | None"),
        ("dashes", "[int, ...]"),
    ],
)
def test_types_read_as_a_user_would_write_them(name: str, text: str) -> None:
    assert options_of(Pen)[name].describe_type() == text


@pytest.mark.parametrize(
    ("annotation", "given", "said"),
    [
        (tuple[str, ...], "apple", """[str, ...], such as, on the command line, 'ink=["apple"]'."""),
        (list[float], "a b", "[float, ...], such as, on the command line, 'ink=[0.5]'."),
        (tuple[int, bool], 3, "[int, bool], such as, on the command line, 'ink=[5, true]'."),
        (
            dict[str, int | tuple[str, ...]] | None,
            "gear",
            "{NAME = int | [str, ...], ...} | None, such as, on the command line, 'ink={gear = 5}'.",
        ),
        (dict[str, Literal["a"]], 3, """{NAME = "a", ...}, such as, on the command line, 'ink={name = "a"}'."""),
        (int, "five", "int."),
    ],
)
def test_a_list_and_a_table_are_refused_with_an_example(annotation: Any, given: Any, said: str) -> None:
    option = Option("ink", annotation, None)
    with pytest.raises(UsageError) as refused:
        check_options("pen", {"ink": option}, {"ink": given})
    assert str(refused.value) == f"option 'ink' of pen is {given!r}, but must be {said}"
    if example := option.example(given):
        assert option.check(tomllib.loads(example.strip("'"))["ink"])


def test_values_are_converted_to_the_annotated_type() -> None:
    options = PENS.component("quill", {"width": 2, "paper": "a4", "dashes": [1, 2]}).options
    assert options == {"width": 2.0, "paper": Path("a4"), "dashes": (1, 2)}
    assert isinstance(options["width"], float)


@given(st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_a_float_option_takes_every_number(value: float) -> None:
    assert PENS.component("quill", {"width": value}).options["width"] == float(value)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("width", "thick", "float"),
        ("width", True, "float"),
        ("strokes", 1.5, "int >= 1"),
        ("strokes", 0, "int >= 1"),
        ("tip", "square", '"round" | "flat"'),
        ("paper", 4, "Path | None"),
        ("dashes", [1, "2"], r"\[int, ...\]"),
        ("wet", 1, "bool"),
    ],
)
def test_a_value_of_another_type_is_refused(option: str, value: object, allowed: str) -> None:
    with pytest.raises(
        UsageError, match=f"option '{option}' of 'quill' is .*, but must be {allowed.replace('|', '.')}"
    ):
        PENS.component("quill", {option: value})


def test_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(UsageError, match=r"'quill' has no option 'widht'; did you mean 'width'\? known: dashes, paper"):
        PENS.component("quill", {"widht": 1})


def test_an_argument_that_may_stand_by_position_is_no_option() -> None:
    with pytest.raises(UsageError, match=r"'ink' of 'quill' is no option, which stands after a `\*`"):
        PENS.component("quill", {"ink": "red"})


def test_an_annotation_that_cannot_be_checked_is_the_users_error() -> None:
    def pen(*, tip: str | Path | None = None) -> None: ...

    with pytest.raises(UsageError, match="option 'tip' of 'pen'"):
        check_options("'pen'", options_of(pen), {"tip": "round"})


def variadic(*colours: str) -> None: ...
def keywords(**colours: str) -> None: ...
def bare(*, colour=None) -> None: ...  # type: ignore[no-untyped-def]
def required(*, colour: str) -> None: ...
def unresolvable(*, colour: "Nowhere" = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (pytest, "pytest is a module, but must be a class: write module:Class"),
        (variadic, r"variadic takes \*colours"),
        (keywords, r"keywords takes \*\*colours"),
        (bare, "'colour' of bare needs an annotation"),
        (required, "'colour' of required needs .* a default"),
        (unresolvable, "annotations of unresolvable cannot be read: NameError"),
    ],
)
def test_options_that_could_not_be_listed_and_checked_are_refused(factory: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        options_of(factory)


def test_a_component_is_equal_by_value_builds_and_describes_every_option() -> None:
    quill = PENS.component("quill", {"width": 2})
    assert quill == PENS.component("quill", {"width": 2.0}) != PENS.component("quill", {"width": 3.0})
    built = quill.build("blue")
    assert (built.ink, built.width) == ("blue", 2.0)
    assert quill.describe() | {"name": "quill", "width": 2.0, "strokes": 2} == quill.describe()


def test_a_constructor_that_does_not_take_what_is_wired_in_is_named() -> None:
    with pytest.raises(SeqdensError, match=r"'quill' of pens \(.*\) has a constructor that does not take .*too many"):
        PENS.component("quill", {}).build(*range(9))
