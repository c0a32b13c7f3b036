"""The settings of a training run: typed, strict, from YAML files and the command line."""

from .load import Config, ConfigError, differences, load_config, model_name, to_dict, to_yaml

__all__ = ["Config", "ConfigError", "differences", "load_config", "model_name", "to_dict", "to_yaml"]
