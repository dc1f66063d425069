from django.urls import path

from coordinator.experiments import views

urlpatterns = [
    path("organize/", views.mine, name="organize"),
    path("organize/new/", views.new, name="experiment_new"),
    path("organize/estimate/", views.size, name="experiment_estimate"),
    path("experiments/<slug:name>/edit/", views.edit, name="experiment_edit"),
    path("experiments/<slug:name>/status/", views.status, name="experiment_status"),
    path("experiments/<slug:name>/archive/", views.archive, name="experiment_archive"),
    path("experiments/<slug:name>/delete/", views.delete, name="experiment_delete"),
    path("experiments/<slug:name>/revisions/", views.revisions, name="experiment_revisions"),
    path("experiments/<slug:name>/revisions/<int:number>/", views.revision, name="experiment_revision"),
]
