DROP TABLE guest_point;
