from django.urls import path

from coordinator.admission import views

urlpatterns = [
    path("invitations/<slug:code>/", views.invitation, name="invitation"),
    path("experiments/<slug:name>/join/", views.join, name="join"),
    path("experiments/<slug:name>/join/ask/", views.ask, name="join_ask"),
    path("experiments/<slug:name>/people/", views.people, name="people"),
    path("experiments/<slug:name>/people/invite/", views.invite, name="people_invite"),
    path("experiments/<slug:name>/people/invitations/<int:pk>/withdraw/", views.withdraw, name="people_withdraw"),
    path("experiments/<slug:name>/people/members/<slug:public_id>/", views.decide, name="people_decide"),
    path("experiments/<slug:name>/people/organizers/", views.appoint, name="people_appoint"),
    path("experiments/<slug:name>/people/organizers/<slug:public_id>/dismiss/", views.dismiss, name="people_dismiss"),
]
