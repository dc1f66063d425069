from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "coordinator.dashboard"
    label = "dashboard"
