from django.urls import path

from coordinator.leaderboard import views

urlpatterns = [
    path("leaderboard/", views.leaderboard, name="leaderboard"),
    path("leaderboard/numbers/", views.numbers, name="leaderboard_numbers"),
    path("leaderboard/in/<slug:name>/", views.leaderboard, name="leaderboard_experiment"),
    path("peers/", views.find_peer, name="find_peer"),
    path("peers/<str:text>/", views.peer, name="peer"),
    path("teams/", views.teams_page, name="teams"),
    path("teams/leave/", views.leave_team, name="team_leave"),
    path("teams/<slug:slug>/", views.team, name="team"),
    path("teams/<slug:slug>/join/", views.join_team, name="team_join"),
]
