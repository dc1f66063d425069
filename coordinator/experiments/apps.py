from django.apps import AppConfig


class ExperimentsConfig(AppConfig):
    name = "coordinator.experiments"
    label = "experiments"
