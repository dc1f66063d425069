from django.apps import AppConfig


class LeaderboardConfig(AppConfig):
    name = "coordinator.leaderboard"
    label = "leaderboard"
