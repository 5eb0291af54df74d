"""What CloudFormation makes of template.yaml: transformed by SAM, with conditions decided and functions resolved."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from boto3 import Session
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
NOTHING = object()


@cache
def transformed(region: str = "us-east-1") -> Json:
    """The template as SAM leaves it for every set of parameters, its functions and conditions unresolved."""
    template: Json = yaml_parse((ROOT / "template.yaml").read_text())
    for resource in template["Resources"].values():
        for name in ("CodeUri", "ContentUri", "DefinitionUri"):
            if name in resource["Properties"]:
                resource["Properties"][name] = {"Bucket": "artifacts", "Key": "key"}  # as `sam package` leaves it
    translator = Translator({}, Parser(), boto_session=Session(region_name=region))
    made: Json = translator.translate(template, {})
    return made


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack. A reference to a resource is the stack's name, a hyphen and the logical id, as its name is."""

    resources: dict[str, Json]
    outputs: dict[str, Json]

    def of_type(self, kind: str) -> dict[str, Json]:
        """The properties of all resources of the type."""
        return {name: each.get("Properties", {}) for name, each in self.resources.items() if each["Type"] == kind}


def deploy(stack_name: str = "nightshift", **parameters: str) -> Stack:
    """The stack that the template makes with ``parameters``, and the defaults of all others."""
    template = transformed()
    assert set(parameters) <= set(template["Parameters"])
    found = _Resolver(template, stack_name, parameters)
    return Stack(resources=found.sections("Resources"), outputs=found.sections("Outputs"))


class _Resolver:
    def __init__(self, template: Json, stack_name: str, parameters: dict[str, str]) -> None:
        self._template = template
        self._stack_name = stack_name
        self._values: Json = {
            "AWS::NoValue": NOTHING,
            "AWS::StackName": stack_name,
            "AWS::AccountId": "123456789012",
            "AWS::Partition": "aws",
            "AWS::Region": "us-east-1",
            "AWS::URLSuffix": "amazonaws.com",
        }
        for name, declared in template["Parameters"].items():
            value = parameters.get(name, str(declared["Default"]))
            self._values[name] = value.split(",") if declared["Type"] == "CommaDelimitedList" else value
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Fn::GetAtt": self._attribute,
            "Fn::If": self._if,
            "Fn::Join": self._join,
            "Fn::Sub": self._sub,
        }

    def sections(self, name: str) -> Json:
        """The resources or outputs whose condition holds, resolved."""
        found: Json = {
            key: self.value({field: value for field, value in each.items() if field != "Condition"})
            for key, each in self._template[name].items()
            if self._exists(each)
        }
        return found

    def value(self, given: Any) -> Any:
        if isinstance(given, list):
            return [each for each in map(self.value, given) if each is not NOTHING]
        if not isinstance(given, dict):
            return given
        if len(given) == 1:
            ((name, argument),) = given.items()
            if name in self._functions:
                return self._functions[name](argument)
        pairs = {name: self.value(each) for name, each in given.items()}
        return {name: each for name, each in pairs.items() if each is not NOTHING}

    def _holds(self, condition: Any) -> bool:
        ((name, argument),) = condition.items()
        match name:
            case "Condition":
                return self._holds(self._template["Conditions"][argument])
            case "Fn::Equals":
                one, other = map(self.value, argument)
                return bool(one == other)
            case "Fn::Not":
                return not self._holds(argument[0])
            case "Fn::And":
                return all(map(self._holds, argument))
            case "Fn::Or":
                return any(map(self._holds, argument))
        raise AssertionError(f"no condition {name}")

    def _exists(self, section: Json) -> bool:
        return "Condition" not in section or self._holds({"Condition": section["Condition"]})

    def _ref(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        # CloudFormation refuses a reference to a resource that its condition leaves out.
        assert self._exists(self._template["Resources"][name]), f"{name} is referred to, and not there"
        return f"{self._stack_name}-{name}"

    def _attribute(self, path: str | list[str]) -> str:
        name, attribute = path.split(".", 1) if isinstance(path, str) else path
        return f"{self._ref(name)}.{attribute}"

    def _sub(self, given: str | list[Any]) -> str:
        text, own = (given, {}) if isinstance(given, str) else given

        def replaced(match: re.Match[str]) -> str:
            name = match[1]
            if name in own:
                return str(self.value(own[name]))
            return str(self._attribute(name) if "." in name else self._ref(name))

        return re.sub(r"\$\{([\w.:]+)\}", replaced, text)

    def _if(self, given: list[Any]) -> Any:
        condition, then, otherwise = given
        return self.value(then if self._holds({"Condition": condition}) else otherwise)

    def _join(self, given: list[Any]) -> str:
        separator, parts = given
        return str(separator).join(map(str, self.value(parts)))
