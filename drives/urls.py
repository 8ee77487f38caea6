from django.urls import path

from drives import views

app_name = "drives"
urlpatterns = [
    path("drives/", views.drive_list, name="list"),
    path("drives/<str:ref>/", views.detail, name="detail"),
    path("drives/<str:ref>/delete/", views.delete, name="delete"),
]
