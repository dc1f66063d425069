from django.apps import AppConfig


class RendezvousConfig(AppConfig):
    name = "coordinator.rendezvous"
    label = "rendezvous"
