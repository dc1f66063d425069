from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "coordinator.monitoring"
    label = "monitoring"

    def ready(self) -> None:
        """Make ours the app that shared tasks are sent by, in every process: without it they go to a broker on localhost."""
        from coordinator import celery

        celery.app.set_default()
