from django.urls import path

from coordinator.dashboard import views

urlpatterns = [
    path("", views.home, name="home"),
    path("experiments/<slug:name>/", views.experiment, name="experiment"),
]
