from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "coordinator.monitoring"
    label = "monitoring"
