from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    name = "coordinator.telemetry"
    label = "telemetry"
