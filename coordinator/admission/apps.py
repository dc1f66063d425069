from django.apps import AppConfig


class AdmissionConfig(AppConfig):
    name = "coordinator.admission"
    label = "admission"
