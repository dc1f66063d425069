from django.urls import path

from coordinator.monitoring import views

urlpatterns = [
    path("operator/", views.operator, name="operator"),
    path("metrics", views.prometheus, name="metrics"),
]
